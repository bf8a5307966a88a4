"""What the report says of the uncertainty of the MD: its calibration and the thresholds used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aiida.common.links import LinkType
from aiida.orm import Dict, Node, ProcessNode

from aiida_autopipe.report.calibration_model import Calibration, UsedThresholds
from aiida_autopipe.report.values import NodeRef

Ref = Callable[[Node], NodeRef]


def used_thresholds(steps: Sequence[ProcessNode], ref: Ref) -> list[UsedThresholds]:
    """Thresholds of each generation's simulations, from the inputs they had."""
    return list(_used(steps, ref))


def _used(steps: Sequence[ProcessNode], ref: Ref) -> Iterator[UsedThresholds]:
    runs = [step for step in steps if step.process_label == "MdWorkChain"]
    for generation, run in enumerate(runs, start=1):
        settings = run.inputs.settings
        yield UsedThresholds(
            generation=generation,
            select=settings["gamma_select"],
            halt=settings["gamma_halt"],
            sentence=_sentence(settings),
            node=ref(settings),
        )


def _sentence(settings: Dict) -> str:
    """Where calibrated thresholds come from, from the function that set them; '' without one."""
    creator = settings.creator
    if creator is None:
        return ""
    outputs = creator.base.links.get_outgoing(
        link_type=LinkType.CREATE, link_label_filter="thresholds"
    ).all_nodes()
    return str(outputs[0]["sentence"]) if outputs else ""


def calibration(steps: Sequence[ProcessNode], measure: str, ref: Ref) -> Calibration | None:
    """That of the last training, for the uncertainty that watches the MD; None without one."""
    trainings = [s for s in steps if s.process_label == "TrainWorkChain" and "metrics" in s.outputs]
    if not trainings:
        return None
    outputs = trainings[-1].outputs
    found = (outputs.metrics.get_dict().get("calibration") or {}).get(measure)
    if found is None:
        return None
    names = outputs.parity.get_arraynames() if "parity" in outputs else []
    pairs: dict[str, Any] = {}
    if f"held_out_{measure}" in names:
        pairs = {
            "uncertainty": outputs.parity.get_array(f"held_out_{measure}"),
            "error": outputs.parity.get_array("held_out_error"),
        }
    shared = (
        "select",
        "halt",
        "select_error",
        "halt_error",
        "n_forces",
        "rank_correlation",
        "note",
    )
    return Calibration(
        **pairs,
        **{name: found[name] for name in shared},
        curve_uncertainty=found["curve"]["uncertainty"],
        curve_error=found["curve"]["expected"],
        node=ref(outputs.metrics),
    )
