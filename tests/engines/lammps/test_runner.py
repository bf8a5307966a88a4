"""The console script `autopipe-lammps`, started by its path from a bare environment."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.errors import EngineError, InputError
from aiida_autopipe.engines.lammps import deck, runner
from aiida_autopipe.engines.lammps.library import commands, execute, open_lammps
from aiida_autopipe.engines.lammps.parse import Outcome, outcome, parse_help, parse_log
from tests.engines.lammps.md_run import md_settings, read_outputs, run_md, segment, write_inputs
from tests.reference.copper import copper, copper_potential

pytestmark = pytest.mark.usefixtures("run_folder")

PROGRAM = Path(sys.executable).parent / "autopipe-lammps"


@pytest.fixture(scope="module")
def potential_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("potential")
    copper_potential().save(folder / "potential")
    return folder


@pytest.fixture
def potential(potential_folder: Path, run_folder: Path) -> ACEPotential:
    """The small copper potential, its files in the current directory."""
    for name in deck.POTENTIAL_FILES:
        (run_folder / name).write_bytes((potential_folder / name).read_bytes())
    return ACEPotential.load(run_folder / "potential.yaml")


@pytest.fixture
def bare_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    yield {"OMP_NUM_THREADS": "1", "HOME": str(tmp_path_factory.getbasetemp())}


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PROGRAM, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_help_names_version_and_packages(bare_environment: dict[str, str]) -> None:
    process = start(bare_environment, "-h")
    output, _ = process.communicate(timeout=60)
    program = parse_help(output)
    assert process.returncode == 0
    assert "2025" in program.version
    assert "MANYBODY" in program.packages and "ML-PACE" not in program.packages


def test_ace_through_the_console_script_equals_the_ace_calculator(
    potential: ACEPotential, bare_environment: dict[str, str]
) -> None:
    atoms = copper(0.06, np.random.default_rng(0))
    settings = md_settings(segment("npt", 20, pressure_GPa=1.0), gamma_select=1e-9)
    write_inputs(atoms, potential.elements, potential.cutoff, settings)
    process = start(bare_environment, "-in", deck.INPUT_FILE)
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    assert "Loop time" in output

    run = read_outputs(atoms)
    assert outcome(run.log, run.trace) is Outcome.FINISHED
    # LAMMPS' own value of Boltzmann's constant in metal units.
    ideal = (len(atoms) - 1) * 8.617343e-5 * run.trace.temperature_K / run.trace.volume
    for index in (0, 7, 20):
        frame = run.frames[index]
        expected = potential.evaluate(frame.atoms, gamma=True)
        assert expected.stress is not None and expected.gamma is not None
        assert run.trace.potential_energy[index] == pytest.approx(expected.energy, abs=1e-9)
        pressure = -expected.stress[:3].mean() + ideal[index]
        assert run.trace.pressure[index] == pytest.approx(pressure, rel=1e-6)
        np.testing.assert_allclose(frame.gamma, expected.gamma, rtol=1e-6)
        assert run.trace.gamma_max[index] == pytest.approx(expected.gamma.max(), rel=1e-6)


def test_nve_with_ace_conserves_energy(potential: ACEPotential) -> None:
    atoms = copper(0.05, np.random.default_rng(1))
    trace = run_md(atoms, potential, md_settings(segment("nve", 100))).trace
    total = trace.potential_energy + 1.5 * (len(atoms) - 1) * 8.617333262e-5 * trace.temperature_K
    np.testing.assert_allclose(total, total[0], atol=2e-4 * len(atoms))


def test_lammps_error_is_told_once_and_exits_1(
    potential: ACEPotential, bare_environment: dict[str, str]
) -> None:
    settings = md_settings(segment("nvt", 10), interface="ml-pace")
    write_inputs(copper(0.0, np.random.default_rng(1)), ["Cu"], 4.0, settings)
    process = start(bare_environment, "-in", deck.INPUT_FILE, "-screen", "none")
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert errors.startswith("ERROR: Unrecognized pair style 'pace/extrapolation'")
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
def test_a_signal_ends_the_run_cleanly(
    potential: ACEPotential, bare_environment: dict[str, str], number: int, status: int
) -> None:
    atoms = copper(0.05, np.random.default_rng(1))
    settings = md_settings(
        segment("nvt", 10**7), segment("npt", 10**7), gamma_every=100, thermo_every=100
    )
    write_inputs(atoms, potential.elements, potential.cutoff, settings)
    process = start(bare_environment, "-in", deck.INPUT_FILE, "-screen", "none")
    while not Path(deck.TRACE_FILE).exists() or len(Path(deck.TRACE_FILE).read_text()) < 500:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert f"stopped by {signal.Signals(number).name}" in errors
    run = read_outputs(atoms)
    assert outcome(run.log, run.trace) is Outcome.INTERRUPTED
    assert run.log.steps > 0


def test_missing_input_file(bare_environment: dict[str, str]) -> None:
    process = start(bare_environment, "-in", "nothing.lammps")
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, "ERROR: There is no input file 'nothing.lammps'.\n")


def test_broken_potential_file_is_one_sentence(
    potential: ACEPotential, bare_environment: dict[str, str]
) -> None:
    atoms = copper(0.05, np.random.default_rng(1))
    write_inputs(atoms, potential.elements, potential.cutoff, md_settings(segment("nve", 5)))
    Path("potential.yaml").write_text("not: [a, potential")
    process = start(bare_environment, "-in", deck.INPUT_FILE, "-screen", "none")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("ERROR: ") and "Traceback" not in errors
    log = parse_log(Path(deck.LOG_FILE).read_text(), errors)
    assert log.error is not None and "potential.yaml" in log.error


def test_marker_without_options_is_refused(potential: ACEPotential) -> None:
    atoms = copper(0.05, np.random.default_rng(1))
    write_inputs(atoms, potential.elements, potential.cutoff, md_settings(segment("nve", 5)))
    include = Path(deck.POTENTIAL_FILE)
    include.write_text(include.read_text().replace("gamma_every", "gama_every"))
    with pytest.raises(
        InputError, match=r"needs a line '# autopipe: potential=FILE gamma_every=N'"
    ):
        runner.run(Path(deck.INPUT_FILE), screen="none")


def test_other_atom_types_than_the_potential_are_refused(potential: ACEPotential) -> None:
    atoms = copper(0.05, np.random.default_rng(1))
    write_inputs(atoms, ["Ag", "Cu"], potential.cutoff, md_settings(segment("nve", 5)))
    with pytest.raises(InputError, match="type stands for Ag, but the potential knows only Cu"):
        runner.run(Path(deck.INPUT_FILE), screen="none")
    # Without the elements of the types they must be those of the potential.
    include = Path(deck.POTENTIAL_FILE)
    include.write_text(include.read_text().replace(" elements=Ag,Cu", ""))
    with pytest.raises(InputError, match="2 atom types but the potential is for Cu"):
        runner.run(Path(deck.INPUT_FILE), screen="none")


def test_commands_joins_continuations_and_drops_comments() -> None:
    text = "units metal\n\n# comment\nfix a all &\n  nvt temp 1 2 3\nrun 5 # trailing\n"
    assert list(commands(text)) == ["units metal", "fix a all nvt temp 1 2 3", "run 5 # trailing"]


def test_library_gives_the_message_of_lammps() -> None:
    instance = open_lammps(["-screen", "none", "-log", "none"])
    with pytest.raises(EngineError, match="Unknown units style nonsense"):
        execute(instance, "units nonsense")
    instance.close()
