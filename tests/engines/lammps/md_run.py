"""One MD run in the current directory: what goes in, what comes out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from aiida_autopipe.engines.lammps import deck, runner
from aiida_autopipe.engines.lammps.external import PairPotential
from aiida_autopipe.engines.lammps.parse import (
    Frame,
    Log,
    Trace,
    parse_dump,
    parse_log,
    parse_trace,
)
from aiida_autopipe.engines.lammps.settings import MdSettings


@dataclass
class Run:
    log: Log
    trace: Trace
    frames: list[Frame]
    safe: list[Frame]


def md_settings(*segments: dict[str, Any], **change: Any) -> dict[str, Any]:
    """Nothing is selected, nothing halts, every step is traced, unless changed."""
    quiet = {"gamma_select": 1e8, "gamma_halt": 1e9, "gamma_every": 1, "thermo_every": 1}
    return {"segments": list(segments), "timestep_fs": 1.0, **quiet, **change}


def segment(ensemble: str, steps: int, kelvin: float = 300.0, **change: Any) -> dict[str, Any]:
    return {"ensemble": ensemble, "steps": steps, "temperature_K": [kelvin, kelvin]} | change


def write_inputs(
    atoms: Atoms, elements: list[str], cutoff: float, settings: dict[str, Any], seed: int = 1
) -> None:
    md = MdSettings.from_dict(settings)
    Path(deck.INPUT_FILE).write_text(deck.input_deck(md, elements, seed))
    Path(deck.POTENTIAL_FILE).write_text(deck.potential_include(md, elements, cutoff))
    Path(deck.DATA_FILE).write_text(deck.data_file(atoms, elements))


def read_outputs(atoms: Atoms) -> Run:
    rotation = deck.lammps_rotation(atoms.cell.array)
    frames = Path(deck.FRAMES_FILE)
    return Run(
        log=parse_log(Path(deck.LOG_FILE).read_text()),
        trace=parse_trace(Path(deck.TRACE_FILE).read_text()),
        frames=parse_dump(frames.read_text(), len(atoms), rotation) if frames.exists() else [],
        safe=[
            frame
            for path in sorted(Path().glob(deck.SAFE_PATTERN))
            for frame in parse_dump(path.read_text(), len(atoms), rotation)
        ],
    )


def run_md(atoms: Atoms, potential: PairPotential, settings: dict[str, Any], seed: int = 1) -> Run:
    """Real LAMMPS in this process, with forces from the given potential."""
    for path in Path().glob("*.dump"):
        path.unlink()
    write_inputs(atoms, potential.elements, potential.cutoff, settings, seed)
    runner.run(Path(deck.INPUT_FILE), screen="none", load=lambda _: potential)
    return read_outputs(atoms)
