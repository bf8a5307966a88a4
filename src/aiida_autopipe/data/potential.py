"""PotentialData: the files of one interatomic potential and what was used to make it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiida.orm import Data

from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.zbl import ZBL, read_zbl
from aiida_autopipe.core.errors import InputError


class PotentialData(Data):
    """Files of one potential in the node's repository.

    .yace, B-basis .yaml, .asi and, if given, the LAMMPS commands .in of an ACE; .model of MACE.

    Attributes in the database: `kind`, `elements`, `cutoff` (Å), `reference_energies` (eV by
    element), `metrics`, `fit` (fingerprints of the dataset and settings, number of functions, ...),
    `filenames`.
    """

    @classmethod
    def from_files(
        cls,
        files: Mapping[str, Path],
        kind: str,
        elements: list[str],
        cutoff: float,
        reference_energies: Mapping[str, float],
        metrics: Mapping[str, Any] | None = None,
        fit: Mapping[str, Any] | None = None,
    ) -> PotentialData:
        """Create a node from files on disk.

        Args:
            files: name in the node -> file to copy.
            kind: 'ace' or another kind a trainer makes.
            elements: chemical symbols the potential knows.
            cutoff: largest interaction radius in Å.
            reference_energies: isolated-atom energy in eV by element.
            metrics: errors on the training and test sets.
            fit: fingerprints of data and settings, and what the trainer chose.

        Raises:
            InputError: no files given, one of them is missing, or a name that is not a plain file
                name.
        """
        if not files:
            raise InputError("A potential needs at least one file.")
        node = cls()
        for name, path in files.items():
            if not name or Path(name).name != name:
                raise InputError(f"'{name}' is not a plain file name for a file of a potential.")
            if not Path(path).is_file():
                raise InputError(f"Potential file '{path}' does not exist.")
            node.base.repository.put_object_from_file(str(Path(path).absolute()), name)
        node.base.attributes.set_many(
            {
                "kind": kind,
                "elements": sorted(elements),
                "cutoff": float(cutoff),
                "reference_energies": {k: float(v) for k, v in reference_energies.items()},
                "metrics": dict(metrics or {}),
                "fit": dict(fit or {}),
                "filenames": sorted(files),
            }
        )
        return node

    @property
    def kind(self) -> str:
        """Kind of potential, such as 'ace'."""
        return str(self.base.attributes.get("kind"))

    @property
    def elements(self) -> list[str]:
        """Chemical symbols, sorted."""
        return list(self.base.attributes.get("elements"))

    @property
    def cutoff(self) -> float:
        """Largest interaction radius in Å."""
        return float(self.base.attributes.get("cutoff"))

    @property
    def reference_energies(self) -> dict[str, float]:
        """Isolated-atom energy in eV by element."""
        return dict(self.base.attributes.get("reference_energies"))

    @property
    def metrics(self) -> dict[str, Any]:
        """Errors on the training and test sets."""
        return dict(self.base.attributes.get("metrics"))

    @property
    def fit(self) -> dict[str, Any]:
        """Fingerprints of data and settings, and what the trainer chose."""
        return dict(self.base.attributes.get("fit"))

    @property
    def filenames(self) -> list[str]:
        """Names of the files in the node."""
        return list(self.base.attributes.get("filenames"))

    def export(self, folder: Path) -> list[Path]:
        """Copy every file into `folder` and return their paths."""
        paths = []
        for name in self.filenames:
            path = folder / name
            path.write_bytes(self.base.repository.get_object_content(name, mode="rb"))
            paths.append(path)
        return paths

    def get_zbl(self) -> ZBL | None:
        """The ZBL repulsion that LAMMPS must be told to add, None without one.

        Raises:
            PotentialFileError: the file of the potential cannot be read.
        """
        names = [n for n in self.filenames if Path(n).suffix in (".yaml", ".yace")]
        if self.kind != "ace" or not names:
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / names[-1]
            path.write_bytes(self.base.repository.get_object_content(names[-1], mode="rb"))
            return read_zbl(path)

    def get_potential(self) -> ACEPotential:
        """The potential, ready to evaluate.

        Raises:
            InputError: a kind that this package does not evaluate itself, or no file of it.
        """
        if self.kind != "ace":
            raise InputError(
                f"A potential of kind '{self.kind}' cannot be evaluated in this process."
            )
        with tempfile.TemporaryDirectory() as folder:
            paths = self.export(Path(folder))
            # The B-basis form gives linear coefficients and has the active set beside it; E0 lives
            # only in the .yace, so it is added back.
            by_suffix = {p.suffix: p for p in paths}
            form = by_suffix.get(".yaml") or by_suffix.get(".yace")
            if form is None:
                raise InputError(
                    f"The potential has no .yaml or .yace file, only {', '.join(self.filenames)}."
                )
            potential = ACEPotential.load(form)
        return replace(potential, reference_energies=self.reference_energies)
