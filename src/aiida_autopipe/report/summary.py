"""`summary.json`: the numbers of a report that other programs rely on."""

from typing import Any

from aiida_autopipe.report.formatting import finite
from aiida_autopipe.report.model import ErrorMetrics, Report, ValidationRow
from aiida_autopipe.report.verdict import has_passed, is_checked, verdict


def summary(report: Report) -> dict[str, Any]:
    """The report as a JSON-able dict: ASE units; missing, NaN and infinite numbers become None.

    `metrics` are those of the final generation. A property that could not be checked has
    `passed: False` and `checked: False`.
    """
    final = report.final
    return {
        "name": report.name,
        "uuid": report.process.uuid,
        "pk": report.process.pk,
        "status": report.status,
        "material": report.material,
        "goal": report.goal,
        "protocol": report.protocol,
        "seed": report.seed,
        "created": report.created.isoformat(),
        "autopipe_version": report.autopipe_version,
        "generations": report.n_generations,
        "fits": len(report.generations),
        "labels": {
            "requested": report.labels.requested,
            "ok": report.labels.ok,
            "rejected": report.labels.rejected,
            "budget": report.labels.budget,
        },
        "stop_reason": report.stop_reason,
        "wall_seconds": finite(report.wall_seconds),
        "time_seconds": {what: finite(seconds) for what, seconds in report.time_shares.items()},
        "metrics": {
            "train": _metrics(final.train if final else ErrorMetrics()),
            "test": _metrics(final.test if final else ErrorMetrics()),
        },
        "verdict": verdict(report).headline,
        "validation": [_row(row) for row in report.validation],
        "files": dict(report.files),
        "warnings": list(report.warnings),
    }


def _metrics(metrics: ErrorMetrics) -> dict[str, float | None]:
    return {name: finite(value) for name, value in metrics}


def _row(row: ValidationRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "potential": finite(row.potential),
        "reference": finite(row.reference),
        "unit": row.unit,
        "relative_error": finite(row.relative_error),
        "tolerance": row.tolerance,
        "rule": row.rule,
        "limit": finite(row.limit),
        "passed": has_passed(row),
        "checked": is_checked(row),
        "note": row.note,
    }
