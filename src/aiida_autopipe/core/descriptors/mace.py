"""Features of a MACE model: the invariant part of its messages, layer by layer.

Batatia et al., NeurIPS 35, 11423 (2022): the node features h_i after each message, of which the
scalars (l = 0, even) are kept. MACE and PyTorch come with the extra `mace`, and are imported when a
model is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_autopipe.core.ace.neighbours import Neighbours, full_neighbour_list
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.files import file_sha256
from aiida_autopipe.core.mace_model import (
    Device,
    Precision,
    check_model,
    choose_device,
    load_model,
    require,
    silent,
)

# Pairs of neighbours in memory together: with 128 channels and l up to 3 about 300 MB.
BATCH_PAIRS = 16384


class MaceDescriptor:
    """Invariant node features of a MACE model after the chosen layers, one behind the other.

    The graph of neighbours is our own, so that many structures are computed in one batch, and no
    forces are computed.
    """

    kind = "mace"

    def __init__(
        self,
        model: Any,
        model_sha256: str,
        layers: Sequence[int] | None = None,
        device: Device = "auto",
        dtype: Precision | None = None,
    ) -> None:
        """Describe with a model in memory; the arguments are those of `from_file`.

        The model itself is changed: moved to the device, converted, and put into evaluation mode.
        """
        torch = require("torch")
        check_model(model)
        self._device = choose_device(torch, device)
        own = str(next(model.parameters()).dtype).removeprefix("torch.")
        self._dtype = dtype or own
        self._model = model.to(device=self._device, dtype=getattr(torch, self._dtype)).eval()
        for parameter in self._model.parameters():
            parameter.requires_grad_(False)
        self._sha256 = model_sha256
        self._layers = _check_layers(layers, int(model.num_interactions))
        self._columns = _invariant_columns(model, self._layers)
        self._numbers = [int(z) for z in model.atomic_numbers]
        self._cutoff = float(model.r_max)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        trust: bool,
        layers: Sequence[int] | None = None,
        device: Device = "auto",
        dtype: Precision | None = None,
    ) -> MaceDescriptor:
        """Open a model file as MACE writes it (`NAME.model`).

        Args:
            path: the file.
            trust: must be True. MACE saves its models as pickles, and opening a pickle runs
                whatever program its author put inside.
            layers: which layers to take, counted from 1; None takes all.
            device: 'auto' takes a GPU where PyTorch finds one.
            dtype: precision of the computation; None takes that of the model.

        Raises:
            InputError: no trust, no such layer, or no GPU.
            PotentialFileError: no such file, or not a MACE model.
            EngineError: MACE is not installed.
        """
        model = load_model(path, trust=trust)
        return cls(model, file_sha256(Path(path)), layers, device, dtype)

    @property
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols the model knows."""
        return tuple(chemical_symbols[z] for z in self._numbers)

    @property
    def n_features(self) -> int:
        """Scalars of all chosen layers."""
        return len(self._columns)

    def settings(self) -> dict[str, Any]:
        """What decides the features; see `Descriptor`. The device is no part of it."""
        return {
            "descriptor": self.kind,
            "elements": list(self.elements),
            "cutoff": self._cutoff,
            "layers": list(self._layers),
            "dtype": self._dtype,
            "model_sha256": self._sha256,
        }

    def compute(self, structures: Sequence[Atoms], *, threads: int = 1) -> NDArray[np.float64]:
        """Features (sum of atoms, F); `threads` are those of PyTorch on the processor.

        Raises:
            DataError: an element the model does not know, or an unusable geometry.
        """
        torch, tools = require("torch"), require("mace.tools.torch_tools")
        features = [np.empty((0, self.n_features))]
        before = torch.get_num_threads()
        torch.set_num_threads(max(1, threads))
        try:
            with torch.no_grad(), tools.default_dtype(self._dtype), silent():
                for batch in self._batches(structures):
                    found = self._model(self._graph(torch, batch), compute_force=False)
                    invariant = found["node_feats"][:, self._columns]
                    features.append(invariant.cpu().numpy().astype(np.float64))
        finally:
            torch.set_num_threads(before)
        return np.concatenate(features)

    def _batches(self, structures: Sequence[Atoms]) -> Iterator[list[tuple[Atoms, Neighbours]]]:
        """Structures with their neighbours, as many as fit into memory together."""
        batch: list[tuple[Atoms, Neighbours]] = []
        n_pairs = 0
        for atoms in structures:
            self._check_elements(atoms)
            pairs = full_neighbour_list(atoms, self._cutoff)
            if batch and n_pairs + len(pairs.centre) > BATCH_PAIRS:
                yield batch
                batch, n_pairs = [], 0
            batch.append((atoms, pairs))
            n_pairs += len(pairs.centre)
        if batch:
            yield batch

    def _check_elements(self, atoms: Atoms) -> None:
        unknown = sorted(set(atoms.numbers.tolist()) - set(self._numbers))
        if unknown:
            raise DataError(
                f"The structure contains {', '.join(chemical_symbols[z] for z in unknown)}, but "
                f"the model knows only {', '.join(self.elements)}."
            )

    def _graph(self, torch: ModuleType, batch: list[tuple[Atoms, Neighbours]]) -> dict[str, Any]:
        """Structures as one graph of separate parts, in the form a MACE model takes."""
        sizes = [len(atoms) for atoms, _ in batch]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        positions = np.concatenate([atoms.positions for atoms, _ in batch])
        pairs = [
            (p.centre + start, p.neighbour + start)
            for (_, p), start in zip(batch, starts, strict=False)
        ]
        centre, neighbour = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
        vectors = np.concatenate([p.vectors for _, p in batch])
        # The model subtracts the positions itself; what is left is the way to the image.
        shifts = vectors - (positions[neighbour] - positions[centre])
        numbers = np.concatenate([atoms.numbers for atoms, _ in batch])
        is_element = numbers[:, None] == np.array(self._numbers)[None, :]
        real = {
            "positions": positions,
            "node_attrs": is_element,
            "shifts": shifts,
            "unit_shifts": np.zeros_like(shifts),  # only for stresses
            "cell": np.concatenate([atoms.cell.array for atoms, _ in batch]),
        }
        whole = {
            "edge_index": np.stack([centre, neighbour]),
            "batch": np.repeat(np.arange(len(batch)), sizes),
            "ptr": starts,
            "head": np.zeros(len(batch)),
        }
        return {
            name: torch.tensor(values, dtype=dtype, device=self._device)
            for part, dtype in ((real, getattr(torch, self._dtype)), (whole, torch.int64))
            for name, values in part.items()
        }


def _check_layers(layers: Sequence[int] | None, n_layers: int) -> tuple[int, ...]:
    chosen = tuple(range(1, n_layers + 1)) if layers is None else tuple(sorted(set(layers)))
    wrong = [layer for layer in chosen if not 1 <= layer <= n_layers]
    if wrong or not chosen:
        raise InputError(
            f"layers = {list(layers or ())}: the model has the layers 1 to {n_layers}, of which "
            "one or more can be taken."
        )
    return chosen


def _invariant_columns(model: Any, layers: tuple[int, ...]) -> list[int]:
    """Columns of the model's node features that hold even scalars of the layers."""
    o3 = require("e3nn.o3")
    columns: list[int] = []
    start = 0
    for layer, product in enumerate(model.products, start=1):
        for count, irrep in o3.Irreps(str(product.linear.irreps_out)):
            width = count * irrep.dim
            if layer in layers and irrep.l == 0 and irrep.p == 1:
                columns += range(start, start + width)
            start += width
    return columns
