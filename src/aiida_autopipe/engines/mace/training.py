"""A MACE training from files to files, in the process that loads PyTorch.

Started by `aiida_autopipe.engines.mace.job`, which also says what the files are.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aiida_autopipe.core.ace.predict import Parity, compare
from aiida_autopipe.core.ace.references import resolve_reference_energies
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import AutopipeError, DataError, InputError
from aiida_autopipe.core.files import write_json
from aiida_autopipe.core.mace_evaluate import MaceModel, single_head
from aiida_autopipe.core.mace_model import choose_device, load_model, require
from aiida_autopipe.core.mace_settings import MaceSettings
from aiida_autopipe.engines.mace import files
from aiida_autopipe.engines.mace.arguments import (
    BASE_FILE,
    MODEL_FILE,
    REPLAY_FILE,
    REPLAY_VALID_FILE,
    RESULTS,
    TRAIN_FILE,
    VALID_FILE,
    Facts,
    arguments,
    config_text,
)
from aiida_autopipe.engines.mace.checkpoints import Checkpoints
from aiida_autopipe.engines.mace.job import (
    CONFIG_FILE,
    METRICS_FILE,
    PARITY_FILE,
    POTENTIAL_FILE,
    failure,
    read_job,
)
from aiida_autopipe.engines.mace.output import Curve, read_log, read_results
from aiida_autopipe.engines.mace.watch import Ended, Watch


@dataclass(frozen=True)
class Prepared:
    """What a training starts from."""

    parts: dict[str, Dataset]
    facts: Facts
    options: dict[str, Any]
    chosen: dict[str, Any]


def prepare(folder: Path, job: dict[str, Any], settings: MaceSettings) -> Prepared:
    """Read and check the data, and write the files that MACE reads.

    Raises:
        InputError, DataError: settings or data that cannot be used.
        PotentialFileError: the model to start from is none.
    """
    base = _base_model(folder, job, settings)
    cutoff = settings.cutoff if base is None else base.cutoff
    data = _read_all(folder, job)
    train = files.usable(data["train"], settings.masked, cutoff, "training")
    notes = list(train.notes)
    parts = _parts(train.dataset, data, job, settings)
    _check_elements(parts, base)
    replay = None
    if "replay" in data and base is not None:
        labelled = _replay(data["replay"], base)
        replay = files.usable(labelled, settings.masked, cutoff, "replay")
        notes += replay.notes
    references, source = _references(train.dataset, settings, base)
    facts = Facts(
        n_train=len(parts["train"]),
        n_replay=0
        if replay is None
        else _write_replay(folder, replay.dataset, base, job, settings),
        has_stress=_has_stress(train.dataset),
        reference_energies=_all_references(references, base, replay),
        device=choose_device(require("torch"), settings.device),
        base=None if base is None else BASE_FILE,
    )
    options = arguments(settings, facts, job["seed"])
    files.write_xyz(parts["train"], folder / TRAIN_FILE)
    files.write_xyz(parts["validation"], folder / VALID_FILE)
    chosen = {
        "mode": facts.mode,
        "device": facts.device,
        "precision": settings.precision,
        "n_train": facts.n_train,
        "n_validation": len(parts["validation"]),
        "n_replay": facts.n_replay,
        "loss": "universal" if facts.mode == "multihead" else options["loss"],
        "batch_size": options["batch_size"],
        "learning_rate": options["lr"],
        "reference_energies": source,
        "notes": notes,
    }
    return Prepared(parts, facts, options, chosen)


def _base_model(folder: Path, job: dict[str, Any], settings: MaceSettings) -> MaceModel | None:
    if not job.get("prior"):
        if settings.reference_energies == "base":
            raise InputError("reference_energies: 'base' needs a model to start from.")
        if job.get("replay"):
            raise InputError("Replayed data need the model that was trained on them as a start.")
        return None
    trust = bool(settings.trust or job.get("trusted"))
    model = single_head(load_model(folder / job["prior"], trust=trust))
    dtype = getattr(require("torch"), settings.precision)
    require("torch").save(model.to(dtype=dtype), folder / BASE_FILE)
    return MaceModel(model, settings.device, settings.precision, settings.threads)


def _read_all(folder: Path, job: dict[str, Any]) -> dict[str, Dataset]:
    """The data sets that the job names."""
    found = {}
    for name in ("train", "validation", "test", "replay"):
        if job.get(name):
            path = folder / job[name]
            if not path.is_file():
                raise InputError(f"There is no data file '{path}'.")
            found[name] = Dataset.read_hdf5(path)
            found[name].validate()
    return found


def _parts(
    train: Dataset, data: dict[str, Dataset], job: dict[str, Any], settings: MaceSettings
) -> dict[str, Dataset]:
    """Training, validation and test part; validation is drawn from the training data by the seed
    unless it is given."""
    if "validation" in data:
        parts = {"train": train, "validation": data["validation"]}
    else:
        rng = np.random.default_rng(job["seed"])
        learn, validate = files.held_out(len(train), settings.validation_fraction, rng)
        parts = {"train": train[learn], "validation": train[validate]}
    return parts | ({"test": data["test"]} if "test" in data else {})


def _check_elements(parts: dict[str, Dataset], base: MaceModel | None) -> None:
    """Every element must be learnt, and known to the model the training starts from."""
    known = parts["train"].elements
    for name in ("validation", "test"):
        unknown = sorted(set(parts[name].elements) - set(known)) if name in parts else []
        if unknown:
            raise DataError(
                f"The {name} data contain {', '.join(unknown)}, which the training part lacks; "
                f"it has {', '.join(known)}."
            )
    unknown = [] if base is None else sorted(set(known) - set(base.elements))
    if base is not None and unknown:
        raise DataError(
            f"The data contain {', '.join(unknown)}, but the model to start from knows only "
            f"{', '.join(base.elements)}."
        )


def _references(
    train: Dataset, settings: MaceSettings, base: MaceModel | None
) -> tuple[dict[str, float], str]:
    """Isolated-atom energies and where they come from; see `MaceSettings.reference_energies`."""
    if base is not None and settings.reference_energies == "base":
        own = base.reference_energies
        return {e: own[e] for e in train.elements}, "those of the model it started from"
    predicted = None
    if base is not None and not train.reference_energies and train.energy is not None:
        predicted = base.interaction_energies(list(train.iter_atoms()))
    return resolve_reference_energies(train, None, predicted)


def _all_references(
    references: dict[str, float], base: MaceModel | None, replay: files.Usable | None
) -> dict[str, float]:
    """With those of elements that only the replayed data have, from the model itself."""
    if base is None or replay is None:
        return references
    own = base.reference_energies
    return {e: own[e] for e in replay.dataset.elements if e in own} | references


def _has_stress(dataset: Dataset) -> bool:
    return dataset.stress is not None and bool(np.isfinite(dataset.stress[:]).all(axis=1).any())


def _write_replay(
    folder: Path,
    dataset: Dataset,
    base: MaceModel | None,
    job: dict[str, Any],
    settings: MaceSettings,
) -> int:
    """Write the replayed data for training and validation; how many are for training."""
    assert base is not None
    rng = np.random.default_rng(job["seed"])
    learn, validate = files.held_out(len(dataset), settings.validation_fraction, rng)
    files.write_xyz(dataset[learn], folder / REPLAY_FILE)
    files.write_xyz(dataset[validate], folder / REPLAY_VALID_FILE)
    return len(learn)


def _replay(dataset: Dataset, base: MaceModel) -> Dataset:
    """The data to replay; where they have no energies, the model itself labels them."""
    unknown = sorted(set(dataset.elements) - set(base.elements))
    if unknown:
        raise DataError(
            f"The replayed data contain {', '.join(unknown)}, but the model to start from knows "
            f"only {', '.join(base.elements)}."
        )
    if dataset.energy is not None:
        return dataset
    found = base.evaluate(list(dataset.iter_atoms()))
    missing = np.full(6, np.nan)
    return replace(
        dataset,
        energy=np.array([one.energy for one in found]),
        forces=np.concatenate([one.forces for one in found]),
        stress=np.array([missing if one.stress is None else one.stress for one in found]),
    )


# ---------------------------------------------------------------------------- training


def train(
    folder: Path, prepared: Prepared, settings: MaceSettings, seconds_left: Any
) -> tuple[str, Curve]:
    """Run MACE until it is done, and leave its best model.

    Returns:
        how it ended, 'finished' or 'patience', and the learning curve.

    Raises:
        Ended: out of time, or diverged.
    """
    torch = require("torch")
    torch.set_num_threads(settings.threads)
    checkpoints = Checkpoints(folder)

    def load(path: Path) -> Any:
        return torch.load(path, map_location="cpu", weights_only=False)

    checkpoints.resume(load, curve_of(folder).loss_after)
    watch = Watch(settings.patience, seconds_left)
    ended, again = "finished", False
    try:
        run_mace(prepared.options, watch)
    except Ended as stop:
        if stop.kind != "patience":
            raise
        ended, again = stop.kind, True
    again = checkpoints.take_back(watch.lowest) is not None or again
    if again:
        # Nothing more is trained: MACE reads its best checkpoint and writes the model.
        run_mace(prepared.options | {"max_num_epochs": 0}, None)
    return ended, curve_of(folder)


def run_mace(options: dict[str, Any], watch: Watch | None) -> None:
    """`mace_run_train` in this process, every record seen by `watch`."""
    run_train, tools = require("mace.cli.run_train"), require("mace.tools")
    path = Path("again.yaml" if watch is None else CONFIG_FILE)
    path.write_text(config_text(options), encoding="utf-8")
    parsed = tools.build_default_arg_parser().parse_args(["--config", str(path)])
    with _watched(tools, watch), _own_logging():
        run_train.run(parsed)


@contextmanager
def _own_logging() -> Iterator[None]:
    """Take back what MACE does to the root logger in each run."""
    root = logging.getLogger()
    handlers, filters, level = list(root.handlers), list(root.filters), root.level
    try:
        yield
    finally:
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:], root.filters[:] = handlers, filters
        root.setLevel(level)


@contextmanager
def _watched(tools: Any, watch: Watch | None) -> Iterator[None]:
    """MACE writes its records through `watch`; without it, they are dropped."""
    original = tools.MetricsLogger

    class Logger(original):  # type: ignore[misc, valid-type]
        def log(self, d: dict[str, Any]) -> None:
            if watch is None:
                return
            try:
                records = watch.see(d)
            except Ended as stop:
                if stop.kind == "diverged":
                    super().log(d)
                raise
            for record in records:
                super().log(record)

    tools.MetricsLogger = Logger
    try:
        yield
    finally:
        tools.MetricsLogger = original


def curve_of(folder: Path) -> Curve:
    """The learning curve so far; empty before anything was written."""
    found = sorted((folder / RESULTS).glob("*_train.txt"))
    return read_results(found[0].read_text(encoding="utf-8") if found else "")


# ---------------------------------------------------------------------------- result


def save_model(folder: Path, settings: MaceSettings) -> MaceModel:
    """Write `potential.model`, with the one head that learnt the new data; the model itself."""
    model = single_head(load_model(folder / MODEL_FILE, trust=True))
    require("torch").save(model, folder / POTENTIAL_FILE)
    return MaceModel(model, settings.device, settings.precision, settings.threads)


def evaluate(model: MaceModel, parts: dict[str, Dataset]) -> dict[str, Parity]:
    """Labels and predictions of every part."""
    return {
        name: compare(part, model.evaluate(list(part.iter_atoms()))) for name, part in parts.items()
    }


def run(folder: Path, deadline: float) -> None:
    """Do the job of a folder.

    Raises:
        AutopipeError: what cannot be used.
        Ended: out of time, or diverged.
    """
    started = time.time()
    job = read_job(folder)
    settings = MaceSettings.from_dict(job.get("settings", {}))
    prepared = prepare(folder, job, settings)
    ended, curve = train(folder, prepared, settings, lambda: deadline - time.time())
    model = save_model(folder, settings)
    parity = evaluate(model, prepared.parts)
    arrays: dict[str, Any] = {}
    for name, part in parity.items():
        arrays |= part.arrays(name)
    np.savez_compressed(folder / PARITY_FILE, allow_pickle=False, **arrays)
    best = int(np.argmin(np.where(curve.epoch >= 0, curve.validation_loss, math.inf)))
    log = read_log(_log_text(folder))
    write_json(
        folder / METRICS_FILE,
        {
            "metrics": {name: part.metrics() for name, part in parity.items()},
            "chosen": prepared.chosen
            | {
                "ended": ended,
                "epochs": int(curve.epoch.max()) + 1,
                "best_epoch": int(curve.epoch[best]),
                "n_parameters": model.n_parameters,
                "receptive_radius": model.receptive_radius,
                "mace": log.version,
            },
            "elements": list(model.elements),
            "cutoff": model.cutoff,
            "reference_energies": model.reference_energies,
            "seconds": time.time() - started,
        },
    )


def _log_text(folder: Path) -> str:
    logs = [p for p in sorted((folder / "logs").glob("*.log")) if "debug" not in p.name]
    return "".join(p.read_text(encoding="utf-8") for p in logs)


def main(arguments_: Sequence[str]) -> int:
    """The training in the current folder, over by the time given; the exit status."""
    folder = Path.cwd()
    try:
        run(folder, float(arguments_[0]))
    except Ended as stop:
        failure(folder, stop.kind, str(stop), stop.epoch)
        return 1
    except AutopipeError as error:
        failure(folder, type(error).__name__, str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
