"""Structure along a simulation in real LAMMPS, against our own counting of the same frames."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.units import kg, m

from aiida_autopipe.core.rdf import BINS, distribution, element_pairs
from aiida_autopipe.engines.lammps import deck, runner
from aiida_autopipe.engines.lammps.external import PairPotential
from aiida_autopipe.engines.lammps.parse import Outcome, outcome
from aiida_autopipe.engines.lammps.results import restart_arrays, restart_structure
from aiida_autopipe.engines.lammps.sampling import (
    MSD_PATTERN,
    RDF_PATTERN,
    parse_scalars,
    parse_vectors,
    structure_arrays,
)
from aiida_autopipe.engines.lammps.settings import MdSettings
from tests.engines.lammps.md_run import Run, md_settings, read_outputs, segment
from tests.engines.lammps.test_external import OWN_PAIR_STYLE
from tests.reference.lennard_jones import LennardJones

pytestmark = pytest.mark.usefixtures("run_folder")

EVERY = {"gamma_every": 5, "thermo_every": 5}


def run_sampled(
    atoms: Atoms,
    potential: PairPotential,
    values: dict[str, Any],
    restart: dict[str, Any] | None = None,
) -> tuple[Run, dict[str, np.ndarray]]:
    """A run and the arrays of its output `structure`; with `restart` it goes on."""
    for pattern in ("*.dump", RDF_PATTERN, MSD_PATTERN):
        for path in Path().glob(pattern):
            path.unlink()
    md = MdSettings.from_dict(values)
    present, elements = sorted(set(atoms.symbols)), potential.elements
    step, start = (None, atoms) if restart is None else restart_structure(restart)
    rotation = deck.lammps_rotation(atoms.cell.array)
    text = deck.input_deck(md, elements, 1, None, step, present)
    Path(deck.INPUT_FILE).write_text(text)
    include = deck.potential_include(md, elements, potential.cutoff)
    Path(deck.POTENTIAL_FILE).write_text(include)
    Path(deck.DATA_FILE).write_text(deck.data_file(start, elements, rotation))
    runner.run(Path(deck.INPUT_FILE), screen="none", load=lambda _: potential)
    arrays = structure_arrays(files(), present, md.timestep_fs)
    assert arrays is not None
    return read_outputs(atoms), arrays


def files() -> dict[str, str]:
    patterns = (RDF_PATTERN, MSD_PATTERN)
    return {path.name: path.read_text() for pattern in patterns for path in Path().glob(pattern)}


def small() -> Atoms:
    """Narrower than the cutoff of the distributions, skewed and rotated."""
    atoms = bulk("Si", "fcc", a=3.31) * (3, 2, 2)
    atoms.rotate(33, (1, 2, 3), rotate_cell=True)
    atoms.symbols[:5] = "Ge"
    return atoms


def cubic() -> Atoms:
    return bulk("Si", "fcc", a=3.31, cubic=True) * (2, 2, 2)


def density(atoms: Atoms) -> float:
    """g/cm³."""
    return float(atoms.get_masses().sum() / atoms.cell.volume * (m / 100) ** 3 / (kg / 1000))


@pytest.mark.parametrize("make", [small, cubic])
def test_distributions_equal_ours_of_the_same_frames(make: Any) -> None:
    """Volumes change; carbon is an element of the potential that the structure does not have."""
    atoms = make()
    potential = LennardJones(elements=["C", "Si", "Ge"])
    values = md_settings(segment("nvt", 20), segment("npt", 15), **EVERY, gamma_select=1e-9)
    run, arrays = run_sampled(atoms, potential, values)
    assert arrays["segment"].tolist() == [1, 2]
    assert arrays["samples"].tolist() == [5, 4]
    pairs = element_pairs(atoms.symbols)
    assert [tuple(pair) for pair in arrays["pairs"]] == list(pairs)
    for row, (first, last) in enumerate(((0, 20), (20, 35))):
        frames = [f.atoms for f in run.frames if first <= f.step <= last]
        ours = distribution(frames, pairs)
        np.testing.assert_allclose(arrays["g"][row], ours.g, atol=1e-6)
        np.testing.assert_allclose(arrays["coordination"][row], ours.coordination, atol=1e-6)
    by_step = {f.step: density(f.atoms) for f in run.frames}
    expected = [by_step[step] for step in arrays["step"]]
    np.testing.assert_allclose(arrays["density"], expected, rtol=1e-6)
    assert arrays["density"][-1] != arrays["density"][0]


def test_a_pair_style_of_lammps_gives_the_same(run_folder: Path) -> None:
    """What stands for ML-PACE runs in an ordinary `lmp`."""
    values = md_settings(segment("nvt", 20), segment("npt", 40), gamma_every=10, thermo_every=10)
    _, ours = run_sampled(cubic(), LennardJones(), values)
    Path(deck.POTENTIAL_FILE).write_text(OWN_PAIR_STYLE)
    lmp = shutil.which("lmp", path=str(Path(sys.executable).parent))
    assert lmp is not None
    subprocess.run([lmp, "-in", deck.INPUT_FILE, "-screen", "none"], check=True)
    theirs = structure_arrays(files(), ["Si"], 1.0)
    assert theirs is not None and set(theirs) == set(ours)
    for name in ("samples", "g", "coordination_number", "density", "msd"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-7, atol=1e-12)


def test_displacement_equals_ours_of_the_same_frames() -> None:
    """From the first step of each segment, of all atoms and of each element."""
    atoms = small()
    potential = LennardJones(elements=["Ge", "Si"])
    values = md_settings(segment("nvt", 30), segment("nve", 30), **EVERY, gamma_select=1e-9)
    run, arrays = run_sampled(atoms, potential, values)
    frames = {f.step: f.atoms.positions for f in run.frames}
    assert arrays["displaced"].tolist() == ["*", "Ge", "Si"]
    is_ge = np.array(atoms.get_chemical_symbols()) == "Ge"
    rows = zip(arrays["time_segment"], arrays["step"], arrays["msd"], strict=True)
    for number, step, msd in rows:
        moved = frames[step] - frames[0 if number == 1 else 30]
        squares = (moved**2).sum(axis=1)
        drift = np.average(moved, axis=0, weights=atoms.get_masses())
        without = ((moved - drift) ** 2).sum(axis=1)
        expected = [without.mean(), squares[is_ge].mean(), squares[~is_ge].mean()]
        np.testing.assert_allclose(msd, expected, atol=1e-7)


def test_crystals_vibrate_and_liquids_flow() -> None:
    crystal = md_settings(segment("nvt", 400, 100.0), timestep_fs=2.0, **EVERY)
    melt = md_settings(segment("nvt", 400, 6000.0), timestep_fs=2.0, **EVERY)
    _, cold = run_sampled(bulk("Si", "fcc", a=3.3, cubic=True), LennardJones(), crystal)
    _, hot = run_sampled(bulk("Si", "fcc", a=4.2, cubic=True), LennardJones(), melt)
    assert 0 < cold["msd"].max() < 0.1
    assert cold["coordination_number"][0, 0] == pytest.approx(12, abs=0.01)
    half = len(hot["msd"]) // 2
    assert hot["msd"][half:].mean() > 2 * hot["msd"][:half].mean() > 1.0


def test_a_run_that_goes_on_has_its_own_origin_and_the_same_samples() -> None:
    """Cut inside the second segment: what is sampled stays on the grid of the whole."""
    whole = md_settings(segment("nvt", 20, 600.0), segment("nvt", 100, 600.0), **EVERY)
    part = {**whole, "segments": [whole["segments"][0], {**whole["segments"][1], "steps": 30}]}
    first, _ = run_sampled(cubic(), LennardJones(), part)
    restart = restart_arrays(first.safe, MdSettings.from_dict(whole))
    assert restart is not None and int(restart["step"]) == 50
    _, rest = run_sampled(cubic(), LennardJones(), whole, restart)
    assert rest["segment"].tolist() == [2]
    assert (rest["first_step"][0], rest["last_step"][0]) == (50, 120)
    assert rest["step"].tolist() == list(range(50, 121, 5))
    assert rest["msd"][0, 0] == pytest.approx(0, abs=1e-12)
    assert rest["msd"][1, 0] > 0


def test_soft_halt_keeps_what_was_sampled() -> None:
    values = md_settings(segment("nvt", 100, 3000.0), segment("nvt", 50, 3000.0), **EVERY)
    quiet, _ = run_sampled(cubic(), LennardJones(), values)
    values["gamma_halt"] = float(quiet.trace.gamma_max[:20].max()) * 0.999
    values["gamma_select"] = values["gamma_halt"] * 0.99
    run, arrays = run_sampled(cubic(), LennardJones(), values)
    assert outcome(run.log, run.trace) is Outcome.HALTED
    assert arrays["segment"].tolist() == [1]
    assert arrays["step"][-1] == run.log.halt_step


def test_numbers_that_are_none_end_the_run() -> None:
    """LAMMPS' `compute rdf` would crash on them."""
    calls = []

    class Bad(LennardJones):
        def evaluate_pairs(self, *args: Any) -> Any:
            calls.append(1)
            result = super().evaluate_pairs(*args)
            result.forces[0] *= np.nan if len(calls) > 12 else 1
            return result

    with pytest.raises(Exception, match="autopipe_flown met on step 15"):
        run_sampled(cubic(), Bad(), md_settings(segment("nvt", 100), **EVERY))
    run = read_outputs(cubic())
    assert outcome(run.log, run.trace) is Outcome.UNSTABLE
    arrays = structure_arrays(files(), ["Si"], 1.0)
    assert arrays is not None and arrays["samples"].tolist() == [3]


@pytest.mark.parametrize("cut", [1, 7, 100, 3000, 4000])
def test_cut_files_give_what_is_whole(cut: int) -> None:
    run_sampled(cubic(), LennardJones(), md_settings(segment("nvt", 20), **EVERY))
    texts = files()
    whole = parse_vectors(texts["rdf.1.dat"])
    part = parse_vectors(texts["rdf.1.dat"][:-cut])
    assert whole.values.shape == (5, BINS, 3)
    assert 0 < len(part.step) < 5
    np.testing.assert_array_equal(part.values, whole.values[: len(part.step)])
    rows = parse_scalars(texts["msd.1.dat"][: -min(cut, 40)])
    assert 0 < len(rows.step) < 5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# header\n",
        "0\n",
        "0 2\n1 0.1 0 0\n",
        "0 0\n",
        "0 1\n1 x 0 0\n",
        "\x00\x00\n",
        "0 1 2\n",
    ],
)
def test_damaged_files(text: str) -> None:
    assert len(parse_vectors(text).step) == 0
    damaged = {"rdf.1.dat": text, "msd.1.dat": text.replace("0 1 2", "0 nan"), "trace.dat": "0\n"}
    assert structure_arrays(damaged, ["Si"], 1.0) is None
