"""Labelled and rejected structures from the outcomes of the processes that labelled them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from aiida.engine import calcfunction
from aiida.orm import ArrayData, Dict
from ase import Atoms

from aiida_autopipe.calculations.functions import bare_atoms, stated
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError, EngineError
from aiida_autopipe.core.kpoints import mesh_of_strained
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.engines.espresso.pw import (
    PwSettings,
    is_isolated_atom,
    label_from_output,
    method,
)


@calcfunction
@stated
def set_kpoints_meshes(dataset: DatasetData, crystal: DatasetData, settings: Dict) -> DatasetData:
    """Give strained copies of one crystal the k-point mesh of the unstrained crystal.

    Pools and molecular dynamics strain the cell; with a mesh of its own for each of them the
    energies would jump where a number of divisions does. The column `kpoints_mesh` holds the mesh,
    'k1 k2 k3', or nothing where the structure is no strained supercell of the crystal.

    Args:
        dataset: structures to be labelled.
        crystal: the unstrained primitive cell is the first structure.
        settings: the method, `PwSettings`, of which `kspacing_per_A` counts.
    """
    data = dataset.get_dataset()
    reference = crystal.get_dataset().atoms(0)
    meshes = []
    for atoms in data.iter_atoms():
        mesh = mesh_of_strained(atoms, reference, float(settings["kspacing_per_A"]))
        meshes.append("" if mesh is None else " ".join(str(k) for k in mesh))
    return DatasetData(data.with_columns(kpoints_mesh=meshes))


@calcfunction
@stated
def collect_labels(
    dataset: DatasetData, settings: Dict, outcome: Dict, **results: Any
) -> dict[str, Any]:
    """Labelled and rejected structures from the outcome of each label calculation.

    A calculation that succeeded but gave no usable label is rejected like one that failed.

    Args:
        dataset: the structures that were to be labelled.
        settings: the method, `PwSettings` for pw.x.
        outcome: `ok` (index -> `from`, the name of the process, `position` in its batch, `rescue`,
            the steps that were needed), `rejected` (index -> reason), `pseudos` (element -> MD5),
            `calculations` (how many were run) and `stopped` (why not all were run, or None).
        results: of a batch `labels_<name>`; of a structure alone `parameters_<index>`,
            `trajectory_<index>` and, where relaxed, `structure_<index>`.

    Returns:
        `labelled` and `rejected`, each only when it is not empty, and `summary`: structures
        requested, ok, rescued, rejected and not_run, calculations, and stopped.
    """
    source = dataset.get_dataset()
    ok = {int(index): one for index, one in outcome["ok"].items()}
    rejected = {int(index): str(reason) for index, reason in outcome["rejected"].items()}
    batches = _Batches(results)
    labelled, rescued = [], 0
    for index in sorted(ok):
        one = ok[index]
        try:
            if f"labels_{one['from']}" in results:
                atoms = batches.atoms(one["from"], one["position"])
            else:
                atoms = _labelled(bare_atoms(source, index), index, results)
        except EngineError as error:
            rejected[index] = str(error)
            continue
        atoms.info |= {"source_index": index, "rescue": one["rescue"]}
        mask = source.labels(index).force_mask
        if mask is not None:  # what is to be learned was decided before, and no oracle knows it
            atoms.arrays["force_mask"] = mask
        labelled.append(atoms)
        rescued += bool(one["rescue"])
    requested = len(labelled) + len(rejected)
    summary = {
        "requested": requested,
        "ok": len(labelled),
        "rescued": rescued,
        "rejected": len(rejected),
        "not_run": len(source) - requested,
        "calculations": outcome["calculations"],
        "stopped": outcome["stopped"],
    }
    outputs: dict[str, Any] = {"summary": Dict(summary)}
    if labelled:
        how = batches.method(settings, outcome["pseudos"], outcome["oracle"])
        data = Dataset.from_atoms(labelled, attributes={"method": how})
        outputs["labelled"] = DatasetData(data)
    if rejected:
        chosen = source[np.array(sorted(rejected), dtype=int)]
        reasons = [rejected[index] for index in sorted(rejected)]
        outputs["rejected"] = DatasetData(
            chosen.with_columns(reason=reasons, source_index=sorted(rejected))
        )
    return outputs


class _Batches:
    """The labels of whole batches, by the name of their process."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        self._data = {
            name.removeprefix("labels_"): node.get_dataset()
            for name, node in results.items()
            if name.startswith("labels_")
        }
        self._rows = {
            name: {int(p): row for row, p in enumerate(data.columns["position"])}
            for name, data in self._data.items()
        }

    def atoms(self, name: str, position: int) -> Atoms:
        """A labelled structure of a batch, without its place in it."""
        if position not in self._rows[name]:
            raise EngineError("Its batch says it succeeded but gave no label.")
        atoms: Atoms = self._data[name].atoms(self._rows[name][position])
        atoms.info.pop("position", None)
        return atoms

    def method(self, settings: Dict, pseudos: Mapping[str, str], oracle: str) -> dict[str, Any]:
        """The one method of all labels; raises DataError when there are several."""
        found = [dict(data.attributes.get("method") or {}) for data in self._data.values()]
        if oracle == "autopipe.pw":
            found.append(method(PwSettings.from_dict(settings.get_dict()), pseudos))
        prints = sorted({str(one.get("fingerprint")) for one in found})
        if len(prints) != 1:
            raise DataError(
                f"The labels come from {len(prints)} methods ({', '.join(prints)}), which must not "
                "be mixed."
            )
        return found[-1]


def _labelled(atoms: Atoms, index: int, results: Mapping[str, Any]) -> Atoms:
    """A structure with the label that its calculation gave; raises EngineError without one."""
    wanted = ["parameters", "trajectory", *(["structure"] if atoms.info.get("relax") else [])]
    missing = [name for name in wanted if f"{name}_{index}" not in results]
    if missing:
        raise EngineError(f"pw.x ended well but gave no output {', '.join(missing)}.")
    arrays: ArrayData = results[f"trajectory_{index}"]
    missing = [name for name in ("forces", "stress") if name not in arrays.get_arraynames()]
    if missing:
        raise EngineError(f"pw.x ended well but printed no {', '.join(missing)}.")
    isolated = is_isolated_atom(atoms)
    label = label_from_output(
        results[f"parameters_{index}"].get_dict(),
        arrays.get_array("forces")[-1],
        arrays.get_array("stress")[-1],
        isolated,
    )
    if "structure" in wanted:
        relaxed = results[f"structure_{index}"].get_ase()
        atoms.set_cell(relaxed.cell)
        atoms.positions[:] = relaxed.positions
    atoms.info["energy"] = label.energy
    atoms.arrays["forces"] = label.forces
    # The stress of a molecule in a box, or of a slab, is an artefact of the box.
    atoms.info.pop("stress", None)
    if atoms.pbc.all():
        atoms.info["stress"] = label.stress
    return atoms
