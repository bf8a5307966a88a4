"""What a batch left: archives and the XML file."""

import io
import tarfile

import numpy as np
import pytest

from aiida_autopipe.core.errors import EngineError
from aiida_autopipe.engines.espresso.batch_output import (
    BOHR,
    HARTREE,
    best_archives,
    program_started,
    read_run,
    read_xml,
)

OUTCOME = "ended exit\nstatus 0\nbegin 1700000000.25\nend 1700000001.75\n"
STEP = """
<total_energy><etot>{energy}</etot></total_energy>
<forces rank="2" dims="3 2" order="F">1 2 3
 4 5 6</forces>
"""
OUTPUT = """
<output>
<atomic_structure nat="2"><atomic_positions>
<atom name="Si" index="1">0 0 0</atom><atom name="Si" index="2">1 2 3</atom>
</atomic_positions><cell><a1>9 0 0</a1><a2>0 8 0</a2><a3>0 0 7</a3></cell></atomic_structure>
{step}
<stress rank="2" dims="3 3" order="F">1e-5 2e-6 0 2e-6 3e-5 0 0 0 4e-5</stress>
</output>
"""


def xml(energy: str = "-7.5", extra: str = "") -> bytes:
    text = OUTPUT.format(step=STEP.format(energy=energy))
    return f"<espresso>{extra}{text}</espresso>".encode()


def archive(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for name, text in files.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size = len(text.encode())
            opened.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_a_complete_archive_comes_before_a_partial_one() -> None:
    names = ["000001.tgz", "000001.part.tgz", "000002.part.tgz", "000003.tgz.tmp", "batch.log"]
    assert best_archives(names) == {1: "000001.tgz", 2: "000002.part.tgz"}


def test_files_of_a_run() -> None:
    found = read_run(archive(outcome=OUTCOME, pw_out="Program PWSCF", pw_err="Noise"))
    assert (found.ended, found.status, found.seconds) == ("exit", 0, 1.5)
    assert (found.crash, found.xml) == (None, None)
    assert program_started(found)
    # Where `date` knows no nanoseconds.
    record = OUTCOME.replace("1700000000.25", "1700000000.N").replace("1.75", "2.N")
    assert read_run(archive(outcome=record)).seconds == 2.0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        archive(outcome=OUTCOME)[:60],
        archive(pw_out="no record"),
        archive(outcome=OUTCOME.replace("status 0", "status x")),
        archive(outcome="ended\n"),
    ],
    ids=["empty", "garbage", "cut", "no record", "no number", "no words"],
)
def test_a_damaged_archive(content: bytes) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        read_run(content)


def test_numbers_of_the_xml_file() -> None:
    found = read_xml(xml())
    assert found.energy == pytest.approx(-7.5 * HARTREE, abs=1e-12)
    np.testing.assert_allclose(found.forces[1], np.array([4, 5, 6]) * HARTREE / BOHR, rtol=1e-14)
    np.testing.assert_allclose(found.positions[1], np.array([1, 2, 3]) * BOHR, rtol=1e-14)
    np.testing.assert_allclose(found.cell, np.diag([9, 8, 7]) * BOHR, rtol=1e-14)
    # 1 Hartree/bohr^3 is 29421 GPa.
    assert found.stress[0, 1] == found.stress[1, 0] == pytest.approx(2e-6 * 29421, rel=1e-4)
    # Of a relaxation, the last step counts.
    steps = "".join(f"<step>{STEP.format(energy=e)}</step>" for e in ("-1", "-2"))
    assert read_xml(xml(extra=steps)).energy == pytest.approx(-2 * HARTREE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<espresso><output>", "is damaged"),
        (b"<espresso></espresso>", "has no output"),
        (xml().replace(b"forces", b"farces"), "has no forces"),
        (xml(energy="-7.****"), "in etot: could not convert"),
        (xml(energy=""), "senseless numbers"),
        (xml().replace(b" 4 5 6", b""), "senseless numbers"),
    ],
)
def test_an_unusable_xml_file(content: bytes, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        read_xml(content)
