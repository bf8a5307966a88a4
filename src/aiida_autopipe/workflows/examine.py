"""One tiny real calculation with each code of a profile, to see that it works."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from aiida.common.exceptions import AiidaException, MultipleObjectsError, NotExistent
from aiida.engine import ProcessBuilder, run_get_node
from aiida.manage.caching import disable_caching
from aiida.orm import Dict, InstalledCode, Int, ProcessNode, QueryBuilder, Str, load_code
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_autopipe.calculations.ace import AceCalculation
from aiida_autopipe.calculations.lammps import LammpsCalculation
from aiida_autopipe.config.models import Config
from aiida_autopipe.core.ace.fit import FitSettings, fit_ace
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import AutopipeError, InputError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.workflows.inputs import job_options
from aiida_autopipe.workflows.label_launch import Limits, label_config, prepare_labels
from aiida_autopipe.workflows.past_labels import TRIAL_EXTRA
from aiida_autopipe.workflows.preflight import code_problem

_SEED = 1
_MD_STEPS = 20
_FIT: dict[str, Any] = {"cutoff": 4.0, "max_rank": 2, "max_functions": 20, "search": 1}


@dataclass(frozen=True)
class Finding:
    """What one code did: whether it works, in words, and the process to look into where not."""

    code: str
    ok: bool
    detail: str
    pk: int | None = None


class _FailedError(Exception):
    """The calculation ran and did not give what it should."""

    def __init__(self, reason: str, node: ProcessNode) -> None:
        super().__init__(reason)
        self.pk = node.pk


def codes_to_examine(labels: Sequence[str]) -> list[InstalledCode]:
    """The codes of these labels, else all of the loaded profile that stages can use.

    :raises InputError: there is no such code, or nothing is known that it could calculate.
    """
    if not labels:
        everything = QueryBuilder().append(InstalledCode).all(flat=True)
        usable = (c for c in everything if c.default_calc_job_plugin in _CHECKS and not c.is_hidden)
        return sorted(usable, key=lambda code: str(code.full_label))
    found = []
    for label in labels:
        try:
            code = load_code(label)
        except (NotExistent, MultipleObjectsError) as error:
            raise InputError(f"AiiDA has no code '{label}', or several: {error}") from error
        plugin = code.default_calc_job_plugin
        if not isinstance(code, InstalledCode) or plugin not in _CHECKS:
            raise InputError(
                f"the code '{label}' is for {plugin or 'no plugin'}; there is a check for codes of "
                f"{', '.join(_CHECKS)}"
            )
        found.append(code)
    return found


def examine(code: InstalledCode) -> Finding:
    """Let a code calculate something that takes seconds, in this process, never from the cache.

    A code that does not work is a finding, not an error. Raises KeyboardInterrupt on Ctrl-C.
    """
    label = str(code.full_label)
    began = time.monotonic()
    try:
        if problem := code_problem("code", str(code.default_calc_job_plugin), label):
            return Finding(label, False, problem.removeprefix("code: "))
        with _uncached(), _quiet():
            detail, node = _CHECKS[str(code.default_calc_job_plugin)](code)
    except _FailedError as error:
        return Finding(label, False, str(error), error.pk)
    except (AutopipeError, AiidaException, ValueError) as error:
        return Finding(label, False, " ".join(str(error).split()))
    return Finding(label, True, f"{detail} in {time.monotonic() - began:.1f} s", node.pk)


@contextmanager
def _uncached() -> Iterator[None]:
    """Without AiiDA's cache, whose own context would not end with an exception in it."""
    context = disable_caching()
    context.__enter__()
    try:
        yield
    finally:
        context.__exit__(None, None, None)


def _examine_pw(code: InstalledCode) -> tuple[str, ProcessNode]:
    """A label of two atoms of silicon off their sites."""
    section = {"code": code.full_label, "kspacing_per_A": 1.1, "max_attempts": 1}
    config = label_config({"label": section}, ["Si"], Path())
    atoms = bulk("Si", a=5.43)
    atoms.rattle(0.05, seed=_SEED)
    builder = prepare_labels(Dataset.from_atoms([atoms]), config, Limits(1, 1)).builder
    builder.batching = Str("single")
    outputs, node = _run(builder)
    if "labelled" not in outputs or len(outputs["labelled"].get_dataset()) == 0:
        reasons = outputs["rejected"].get_dataset().columns["reason"]
        raise _FailedError(f"no label of silicon: {reasons[0]}", node)
    labels = outputs["labelled"].get_dataset().labels(0)
    force = np.abs(labels.forces).max()
    return f"silicon: {labels.energy / 2:.3f} eV/atom, largest force {force:.2f} eV/Å", node


def _examine_python(code: InstalledCode) -> tuple[str, ProcessNode]:
    """A fit of some copper."""
    builder = AceCalculation.get_builder()
    builder.code = code
    builder.train = DatasetData(_copper())
    builder.settings = Dict(_FIT)
    builder.seed = Int(_SEED)
    builder.metadata.options = _options(code, "train")
    outputs, node = _run(builder)
    chosen = outputs["metrics"].get_dict()["chosen"]
    return f"fitted {chosen['n_functions']} functions to copper", node


def _examine_lammps(code: InstalledCode) -> tuple[str, ProcessNode]:
    """Molecular dynamics of copper with a potential that is fitted here."""
    train = _copper()
    fit = fit_ace(train, FitSettings(**_FIT, threads=1), rng=np.random.default_rng(_SEED))
    builder = LammpsCalculation.get_builder()
    builder.code = code
    builder.structure = DatasetData(train[:1])
    with tempfile.TemporaryDirectory() as folder:
        files = {path.name: path for path in fit.potential.save(Path(folder) / "copper")}
        references = dict(fit.potential.reference_energies)
        builder.potential = PotentialData.from_files(
            files, "ace", ["Cu"], fit.potential.cutoff, references
        )
        builder.settings = Dict(
            {
                "segments": [
                    {"ensemble": "nvt", "temperature_K": [300, 300], "steps": _MD_STEPS},
                ],
                "gamma_select": 100.0,
                "gamma_halt": 1000.0,
            }
        )
        builder.seed = Int(_SEED)
        builder.metadata.options = _options(code, "md")
        outputs, node = _run(builder)
    results = outputs["results"].get_dict()
    if results["outcome"] != "finished":
        raise _FailedError(f"the simulation ended after {results['steps_done']} steps", node)
    return f"{results['steps_done']} steps of copper", node


_CHECKS: dict[str, Callable[[InstalledCode], tuple[str, ProcessNode]]] = {
    "quantumespresso.pw": _examine_pw,
    "autopipe.lammps": _examine_lammps,
    "autopipe.ace": _examine_python,
}


def _run(builder: ProcessBuilder) -> tuple[dict[str, Any], ProcessNode]:
    """Outputs of a process that ended well."""
    outputs, node = run_get_node(builder)
    for job in node.called_descendants:
        job.base.extras.set(TRIAL_EXTRA, True)
    if node.is_killed:
        # That is what AiiDA makes of Ctrl-C.
        raise KeyboardInterrupt
    if not node.is_finished_ok:
        reason = node.exit_message or node.exception or f"exit code {node.exit_status}"
        raise _FailedError(" ".join(str(reason).split()), node)
    return outputs, node


def _options(code: InstalledCode, stage: str) -> dict[str, Any]:
    """Options of a job with the default resources of a stage."""
    config: Config = label_config({"label": {}}, ["Cu"], Path())
    return job_options(config.resources.model_dump()[stage], code.with_mpi)


def _copper() -> Dataset:
    """Six rattled cells of 8 atoms, labelled by ASE's effective medium theory."""
    rng = np.random.default_rng(_SEED)
    cells: list[Atoms] = []
    for _ in range(6):
        atoms = bulk("Cu", "fcc", a=3.6) * (2, 2, 2)
        atoms.positions += rng.normal(scale=0.08, size=(len(atoms), 3))
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        cells.append(atoms)
    return Dataset.from_atoms(cells)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the reports of processes, of which the finding says what matters."""
    logger = logging.getLogger("aiida")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
