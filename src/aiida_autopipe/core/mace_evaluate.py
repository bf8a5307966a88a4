"""Energies, forces and stresses of a MACE model for many structures, in batches.

The graphs are those of MACE itself (`mace.data`). MACE and PyTorch come with the extra `mace`, and
are imported when a model is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_autopipe.core.ace.potential import Evaluation
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.mace_model import (
    Device,
    Precision,
    choose_device,
    load_model,
    require,
    silent,
)

HEAD = "Default"
"""How MACE calls the head that learns the data it is given."""
BATCH_ATOMS = 512
"""Atoms of one batch; a larger structure is a batch of its own."""


class MaceModel:
    """A MACE model that evaluates structures."""

    def __init__(
        self, model: Any, device: Device = "auto", dtype: Precision | None = None, threads: int = 1
    ) -> None:
        """Take a model in memory; it is moved to the device, converted, and its weights are fixed.

        Args:
            model: a MACE or ScaleShiftMACE module; of several heads that of `head_of` counts.
            device: 'auto' takes a GPU where PyTorch finds one.
            dtype: precision of the computation; None takes that of the model.
            threads: of PyTorch on the processor.

        Raises:
            InputError: no GPU, where one was asked for.
        """
        torch = require("torch")
        self._device = choose_device(torch, device)
        self._dtype = dtype or str(next(model.parameters()).dtype).removeprefix("torch.")
        self._model = model.to(device=self._device, dtype=getattr(torch, self._dtype)).eval()
        for parameter in self._model.parameters():
            parameter.requires_grad_(False)
        self._heads = heads_of(model)
        self._head = head_of(model)
        self._numbers = [int(z) for z in model.atomic_numbers]
        self._threads = threads

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        trust: bool,
        device: Device = "auto",
        dtype: Precision | None = None,
        threads: int = 1,
    ) -> MaceModel:
        """Open a model file; see `aiida_autopipe.core.mace_model.load_model` for `trust`.

        Raises:
            InputError: no trust, or no GPU.
            PotentialFileError: no such file, or not a MACE model.
            EngineError: MACE is not installed.
        """
        return cls(load_model(path, trust=trust), device, dtype, threads)

    @property
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols the model knows."""
        return tuple(chemical_symbols[z] for z in self._numbers)

    @property
    def cutoff(self) -> float:
        """Radius of one layer in Å."""
        return float(self._model.r_max)

    @property
    def receptive_radius(self) -> float:
        """Distance in Å up to which atoms change the energy of another: cutoff times layers."""
        return self.cutoff * int(self._model.num_interactions)

    @property
    def reference_energies(self) -> dict[str, float]:
        """Isolated-atom energy in eV by element."""
        energies = self._model.atomic_energies_fn.atomic_energies.detach().cpu().numpy()
        own = np.atleast_2d(energies)[self._heads.index(self._head)]
        return dict(zip(self.elements, map(float, own), strict=True))

    @property
    def n_parameters(self) -> int:
        """Numbers that training changes."""
        return sum(int(p.numel()) for p in self._model.parameters())

    def evaluate(self, structures: Sequence[Atoms]) -> list[Evaluation]:
        """Evaluate structures; `gamma` is None, `stress` is None unless periodic in all directions.

        Raises:
            DataError: an element the model does not know, with the structure's index.
        """
        torch, tools = require("torch"), require("mace.tools.torch_tools")
        found: list[Evaluation] = []
        before = torch.get_num_threads()
        torch.set_num_threads(max(1, self._threads))
        try:
            with tools.default_dtype(self._dtype), silent():
                for batch in self._batches(structures):
                    found += self._evaluate_batch(batch)
        finally:
            torch.set_num_threads(before)
        return found

    def interaction_energies(self, structures: Sequence[Atoms]) -> NDArray[np.float64]:
        """(n,) energies in eV without those of the isolated atoms.

        Raises:
            DataError: as `evaluate`.
        """
        own = self.reference_energies
        atoms = [sum(own[s] for s in one.get_chemical_symbols()) for one in structures]
        total = [found.energy for found in self.evaluate(structures)]
        return np.array(total, dtype=np.float64) - np.array(atoms, dtype=np.float64)

    def _batches(self, structures: Sequence[Atoms]) -> Iterator[list[Atoms]]:
        batch: list[Atoms] = []
        size = 0
        for index, atoms in enumerate(structures):
            self._check_elements(index, atoms)
            if batch and size + len(atoms) > BATCH_ATOMS:
                yield batch
                batch, size = [], 0
            batch.append(atoms)
            size += len(atoms)
        if batch:
            yield batch

    def _check_elements(self, index: int, atoms: Atoms) -> None:
        unknown = sorted(set(atoms.numbers.tolist()) - set(self._numbers))
        if unknown:
            raise DataError(
                f"Structure {index} contains {', '.join(chemical_symbols[z] for z in unknown)}, "
                f"but the model knows only {', '.join(self.elements)}."
            )

    def _evaluate_batch(self, structures: Sequence[Atoms]) -> list[Evaluation]:
        data, geometric = require("mace.data"), require("mace.tools.torch_geometric")
        table = require("mace.tools").AtomicNumberTable(self._numbers)
        graphs = [
            data.AtomicData.from_config(
                data.config_from_atoms(bare(atoms), head_name=self._head),
                z_table=table,
                cutoff=self.cutoff,
                heads=self._heads,
            )
            for atoms in structures
        ]
        batch = geometric.batch.Batch.from_data_list(graphs).to(self._device)
        output = self._model(batch.to_dict(), compute_stress=True)
        values = {
            name: output[name].detach().cpu().numpy().astype(np.float64)
            for name in ("energy", "node_energy", "forces", "stress")
        }
        starts = np.concatenate([[0], np.cumsum([len(atoms) for atoms in structures])])
        return [
            Evaluation(
                float(values["energy"][k]),
                values["node_energy"][starts[k] : starts[k + 1]],
                values["forces"][starts[k] : starts[k + 1]],
                voigt(values["stress"][k]) if atoms.pbc.all() else None,
                None,
            )
            for k, atoms in enumerate(structures)
        ]


def heads_of(model: Any) -> list[str]:
    """Names of the heads of a model; one is 'Default' where they have no names."""
    return list(getattr(model, "heads", None) or [HEAD])


def head_of(model: Any) -> str:
    """The head that counts: the one that learnt the newest data, which MACE calls 'Default'."""
    heads = heads_of(model)
    return HEAD if HEAD in heads else heads[-1]


def single_head(model: Any) -> Any:
    """A model with only the head that counts, in the form MACE can start a fine-tuning from.

    Wherever a model of several heads is used, it would need to be told which one counts.
    """
    torch, scripts = require("torch"), require("mace.tools.scripts_utils")
    tools = require("mace.tools.torch_tools")
    if len(heads_of(model)) > 1:
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        with tools.default_dtype(dtype), silent():
            model = scripts.remove_pt_head(model, head_of(model))
    block = model.atomic_energies_fn
    # MACE 0.3.16 cannot read the (1, 1) array of a model of one element.
    block.atomic_energies = torch.atleast_1d(block.atomic_energies.squeeze())
    return model.cpu()


def bare(atoms: Atoms) -> Atoms:
    """A copy without labels or other data."""
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def voigt(stress: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) to the order xx yy zz yz xz xy."""
    return np.array([stress[i, j] for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))])


def evaluate_committee(
    models: Iterable[MaceModel], structures: Sequence[Atoms]
) -> list[list[Evaluation]]:
    """Evaluations of each model.

    Raises:
        InputError: fewer than two models.
        DataError: as `MaceModel.evaluate`.
    """
    members = [model.evaluate(structures) for model in models]
    if len(members) < 2:
        raise InputError(f"A committee needs at least 2 models, there is {len(members)}.")
    return members
