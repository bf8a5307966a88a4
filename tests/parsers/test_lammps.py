"""Each exit code on recorded output of LAMMPS."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida.common.links import LinkType
from aiida.orm import CalcJobNode, Dict, FolderData
from ase.io import read

from aiida_autopipe.calculations.lammps import LammpsCalculation
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.rdf import BINS
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.engines.lammps import deck
from aiida_autopipe.parsers.lammps import LammpsParser

RECORDED = Path(__file__).parent / "fixtures" / "lammps"
STDERR = "_scheduler-stderr.txt"
PERMANENT = (deck.LOG_FILE, deck.TRACE_FILE, STDERR)


@pytest.fixture
def parse(localhost: Any, tmp_path: Path) -> Any:
    """Parse a recorded case; `leave_out` names files that were not retrieved."""

    def run(case: str, leave_out: tuple[str, ...] = (), exit_status: int | None = None) -> Any:
        folder = RECORDED / case
        node = CalcJobNode(computer=localhost, process_type="aiida.calculations:autopipe.lammps")
        node.set_option("resources", {"num_machines": 1, "num_mpiprocs_per_machine": 1})
        node.set_option("scheduler_stderr", STDERR)
        inputs = {
            "settings": Dict(json.loads((folder / "settings.json").read_text())),
            "structure": DatasetData(Dataset.from_atoms([read(folder / "structure.extxyz")])),
        }
        for label, data in inputs.items():
            node.base.links.add_incoming(data.store(), LinkType.INPUT_CALC, label)
        if exit_status is not None:
            node.set_exit_status(exit_status)
            node.set_exit_message("the scheduler's own message")
        node.store()
        retrieved = FolderData()
        for name in PERMANENT:
            if (folder / name).exists() and name not in leave_out:
                retrieved.base.repository.put_object_from_file(str(folder / name), name)
        retrieved.base.links.add_incoming(node, LinkType.CREATE, "retrieved")
        retrieved.store()
        for path in folder.glob("*.dump"):
            shutil.copy(path, tmp_path)
        outputs, process = LammpsParser.parse_from_node(
            node, store_provenance=False, retrieved_temporary_folder=str(tmp_path)
        )
        return outputs, process

    return run


def test_finished(parse: Any, data_regression: Any) -> None:
    outputs, process = parse("finished")
    assert process.exit_status == 0
    assert set(outputs) == {"results", "trace", "frames"}
    assert set(outputs["trace"].get_arraynames()) == {
        "step",
        "time_ps",
        "temperature_K",
        "pressure",
        "volume",
        "potential_energy",
        "gamma_max",
    }
    frames = outputs["frames"].get_dataset()
    start = read(RECORDED / "finished" / "structure.extxyz")
    assert len(frames) == 5
    # The last safe frame is from the NPT part: same shape and orientation, another volume.
    scale = np.cbrt(frames.atoms(0).cell.volume / start.cell.volume)
    np.testing.assert_allclose(frames.cell[0], start.cell.array * scale, atol=1e-8)
    data_regression.check(outputs["results"].get_dict())


def test_halted_by_gamma_is_success(parse: Any, data_regression: Any) -> None:
    outputs, process = parse("halted")
    assert process.exit_status == 0
    assert outputs["frames"].get_dataset().columns["step"].tolist() == [10, 20, 30]
    data_regression.check(outputs["results"].get_dict())


@pytest.mark.parametrize(
    ("case", "name", "message", "outputs"),
    [
        (
            "missing",
            "ERROR_OUTPUT_MISSING",
            "log.lammps is missing. ERROR: There is no input file 'in.lammps'.",
            set(),
        ),
        (
            "interrupted",
            "ERROR_INTERRUPTED",
            "was interrupted after step 25043 of 100000. autopipe-lammps was stopped by SIGTERM",
            {"results", "trace", "frames"},
        ),
        (
            "killed",
            "ERROR_INTERRUPTED",
            "was interrupted after step 17200 of 100000.",
            {"results", "trace", "frames"},
        ),
        (
            "error",
            "ERROR_LAMMPS",
            "LAMMPS stopped at step 0: Unrecognized pair style 'pace/extrapolation' is part of",
            {"results"},
        ),
        (
            "lost_atoms",
            "ERROR_LOST_ATOMS",
            "flew apart after step 20 of 100: Lost atoms: original 8 current 5",
            {"results", "trace", "frames"},
        ),
        (
            "unstable",
            "ERROR_UNSTABLE",
            "became NaN after step 2 of 100.",
            {"results", "trace", "frames"},
        ),
        (
            "out_of_walltime",
            "ERROR_OUT_OF_WALLTIME",
            "time limit ended the run after step 4800 of 100000.",
            {"results", "trace", "frames"},
        ),
    ],
)
def test_exit_codes(parse: Any, case: str, name: str, message: str, outputs: set[str]) -> None:
    found, process = parse(case)
    assert process.exit_status == LammpsCalculation.exit_codes[name].status
    assert message in process.exit_message
    assert set(found) == outputs


def test_log_without_trace_is_missing_output(parse: Any) -> None:
    _, process = parse("finished", leave_out=(deck.TRACE_FILE,))
    assert process.exit_status == 301
    assert "trace.dat is missing" in process.exit_message


def test_structure_of_a_run_that_was_killed_while_it_wrote(parse: Any, tmp_path: Path) -> None:
    blocks = [
        f"{step} {BINS}\n" + "".join(f"{i} {0.05 * i:g} {step} {i}\n" for i in range(1, BINS + 1))
        for step in (0, 100, 200)
    ]
    (tmp_path / "rdf.1.dat").write_text("".join(blocks)[:-20])
    (tmp_path / "msd.1.dat").write_bytes(b"# header\n0 2.5 0.0\n10 2.4 0.1\n20 2.\xff\x00")
    outputs, _ = parse("killed")
    structure = outputs["structure"]
    assert structure.get_array("samples").tolist() == [2]
    assert np.all(structure.get_array("g") == 50.0)
    assert structure.get_array("step").tolist() == [0, 10]
    assert structure.get_array("msd").tolist() == [[0.0], [0.1]]


def test_another_dump_is_unreadable(parse: Any, tmp_path: Path) -> None:
    text = (RECORDED / "halted" / "frames.dump").read_text().replace("xu yu zu", "xs ys zs")
    # Sorted before the recorded ones, so that it is read as well.
    (tmp_path / "safe.-.dump").write_text(text)
    _, process = parse("halted")
    assert process.exit_status == 306
    assert "columns 'ITEM: ATOMS id element xs ys zs" in process.exit_message


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("binary_log", "log.lammps is not text: invalid start byte at byte "),
        ("garbage_log", "The log cannot be read: could not convert string to float: '1.2.3'."),
        ("garbage_trace", "Line 3 of the trace cannot be read: could not convert string to float"),
        ("ragged_trace", "Line 3 of the trace cannot be read: 4 columns instead of 7."),
        ("binary_trace", "trace.dat is not text: invalid start byte at byte "),
        ("garbage_dump", "A frame of the dump cannot be read: "),
        ("unknown_element", "A frame of the dump cannot be read: 'Zz'."),
    ],
)
def test_garbage_is_unreadable(parse: Any, case: str, message: str) -> None:
    outputs, process = parse(case)
    assert process.exit_status == LammpsCalculation.exit_codes.ERROR_OUTPUT_UNREADABLE.status
    assert message in process.exit_message
    assert outputs == {}


def test_standard_error_in_another_encoding(parse: Any) -> None:
    _, process = parse("latin1_stderr")
    assert process.exit_status == 301
    assert "log.lammps is missing. Kein Speicher" in process.exit_message


def test_what_the_scheduler_found_goes_first(parse: Any) -> None:
    outputs, process = parse("killed", exit_status=120)
    assert (process.exit_status, process.exit_message) == (120, "the scheduler's own message")
    assert "frames" in outputs
