"""What a batch of pw.x left behind: one archive per structure, and the numbers in its XML file.

The XML file is read here and not by aiida-quantumespresso: validating it against its schema takes
longer than a small calculation. Numbers and units are the same.
"""

from __future__ import annotations

import io
import re
import tarfile
import zlib
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from qe_tools import CONSTANTS

from aiida_autopipe.core.errors import EngineError

# The units of aiida-quantumespresso, so that a label does not depend on how it was run.
BOHR = CONSTANTS.bohr_to_ang
HARTREE = CONSTANTS.ry_to_ev * 2
STRESS_UNIT = CONSTANTS.au_gpa

XML_FILE = "data-file-schema.xml"
_ARCHIVE_NAME = re.compile(r"(\d+)(\.part)?\.tgz")


@dataclass(frozen=True)
class RunFiles:
    """What is kept of the run of one structure.

    Attributes:
        ended: 'exit' by itself, 'timeout' at the limit of one structure, 'stopped' with the job.
        status: exit status of the command; above 128 it is a signal.
        seconds: from start to end.
        stdout: standard output.
        stderr: standard error.
        crash: pw.x's CRASH file.
        xml: pw.x's XML file.
    """

    ended: str
    status: int
    seconds: float
    stdout: str
    stderr: str
    crash: str | None = None
    xml: bytes | None = None


@dataclass(frozen=True)
class XmlResult:
    """Numbers from the XML file.

    Attributes:
        energy: total energy, with smearing the free energy, in eV.
        forces: (n, 3) in eV/Å.
        stress: (3, 3) in GPa with pw.x's sign.
        positions: (n, 3) in Å, of the last geometry.
        cell: (3, 3) in Å.
    """

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]


def best_archives(names: list[str]) -> dict[int, str]:
    """Name of the archive of each structure that has one; a complete one before a partial one."""
    found: dict[int, str] = {}
    # '000001.part.tgz' sorts before '000001.tgz', which then replaces it.
    for name in sorted(names):
        match = _ARCHIVE_NAME.fullmatch(name)
        if match:
            found[int(match[1])] = name
    return found


def read_run(archive: bytes) -> RunFiles:
    """The files of one structure.

    Raises:
        EngineError: the archive is damaged or lacks the record of how the run ended.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
            contents = {
                member.name: handle.read()
                for member in opened.getmembers()
                if (handle := opened.extractfile(member)) is not None
            }
        record = dict(line.split(" ", 1) for line in contents["outcome"].decode().splitlines())
        # `date` of some systems knows no nanoseconds and prints an N for them.
        begin, end = (float(record[key].replace(".N", "")) for key in ("begin", "end"))
        return RunFiles(
            ended=record["ended"],
            status=int(record["status"]),
            seconds=round(end - begin, 3),
            stdout=_text(contents.get("pw.out", b"")),
            stderr=_text(contents.get("pw.err", b"")),
            crash=_text(contents["CRASH"]) if "CRASH" in contents else None,
            xml=contents.get(XML_FILE),
        )
    except (tarfile.TarError, OSError, EOFError, zlib.error, KeyError, ValueError) as error:
        raise EngineError(f"The files that pw.x left cannot be read: {error!r}.") from error


def _text(content: bytes) -> str:
    return content.decode(errors="replace")


def read_xml(content: bytes) -> XmlResult:
    """Energy, forces, stress and geometry at the end of a run.

    Raises:
        EngineError: the file is damaged or lacks one of them.
    """
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise EngineError(f"The XML file of pw.x is damaged: {error}.") from error
    output = _child(root, "output")
    # A relaxation ends with the step it converged at.
    last = (root.findall("step") or [output])[-1]
    geometry = _child(output, "atomic_structure")
    atoms = [_numbers(atom) for atom in geometry.iterfind("atomic_positions/atom")]
    cell = [_numbers(_child(geometry, f"cell/{name}")) for name in ("a1", "a2", "a3")]
    shape = (len(atoms), 3)
    try:
        return XmlResult(
            energy=float(_numbers(_child(last, "total_energy/etot"))[0] * HARTREE),
            forces=(_numbers(_child(last, "forces")) * HARTREE / BOHR).reshape(shape),
            stress=(_numbers(_child(output, "stress")) * STRESS_UNIT).reshape(3, 3),
            positions=np.array(atoms).reshape(shape) * BOHR,
            cell=np.array(cell).reshape(3, 3) * BOHR,
        )
    except (ValueError, IndexError) as error:
        raise EngineError(f"The XML file of pw.x has senseless numbers: {error}.") from error


def _child(element: ElementTree.Element, path: str) -> ElementTree.Element:
    found = element.find(path)
    if found is None:
        raise EngineError(f"The XML file of pw.x has no {path}.")
    return found


def _numbers(element: ElementTree.Element) -> NDArray[np.float64]:
    try:
        return np.array([float(word) for word in (element.text or "").split()])
    except ValueError as error:
        raise EngineError(f"The XML file of pw.x has in {element.tag}: {error}.") from error


def program_started(files: RunFiles) -> bool:
    """True when pw.x itself came to write anything."""
    return "Program PWSCF" in files.stdout
