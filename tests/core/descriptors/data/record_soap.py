"""Record SOAP features of dscribe 2.1.2 for the tests: python record_soap.py, with it installed.

Writes soap_dscribe.npz beside this file: for each case its settings (JSON), structure and features,
of each atom and averaged. The structures are made here, with a fixed seed.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from dscribe.descriptors import SOAP


def rattled(atoms, seed):
    """A copy with every atom moved a little, all inside the cell: dscribe looks no further."""
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(seed).normal(0.0, 0.1, (len(atoms), 3))
    atoms.wrap()
    return atoms


def perovskite():
    return Atoms(
        "CaTiO3",
        cell=[3.9, 3.9, 3.9],
        scaled_positions=[
            [0.05, 0.05, 0.05],
            [0.55, 0.55, 0.55],
            [0.55, 0.55, 0.05],
            [0.55, 0.05, 0.55],
            [0.05, 0.55, 0.55],
        ],
        pbc=True,
    )


def skewed():
    return Atoms(
        "NaCl",
        cell=[[4.0, 0.0, 0.0], [6.5, 3.6, 0.0], [1.0, 5.0, 3.8]],
        scaled_positions=[[0.1, 0.1, 0.1], [0.5, 0.4, 0.6]],
        pbc=True,
    )


def slab():
    atoms = fcc111("Cu", (1, 1, 3), vacuum=4.0)
    atoms.pbc = [True, True, False]
    return atoms


ISSUE = {"r_cut": 5.0, "n_max": 8, "l_max": 6, "sigma": 0.5}
SMALL = {"r_cut": 4.0, "n_max": 3, "l_max": 3, "sigma": 0.4}
WIDE = {"r_cut": 6.0, "n_max": 6, "l_max": 5, "sigma": 1.0}
CASES = {
    "silicon": (rattled(bulk("Si", cubic=True), 1)[:4], ISSUE),
    "skewed cell": (skewed(), ISSUE),
    "slab": (rattled(slab(), 2), ISSUE),
    "three elements": (rattled(perovskite(), 3), SMALL),
    "molecule": (molecule("CH3OH", pbc=False), SMALL),
    "wide Gaussians": (molecule("H2O", pbc=False), WIDE),
    "one function": (skewed(), {"r_cut": 3.0, "n_max": 1, "l_max": 0, "sigma": 0.7}),
    "many functions": (molecule("LiH"), {"r_cut": 6.0, "n_max": 9, "l_max": 7, "sigma": 0.3}),
}


def main():
    arrays = {"version": version("dscribe"), "names": [], "settings": []}
    for name, (atoms, numbers) in CASES.items():
        for rbf in ("gto", "polynomial"):
            k = len(arrays["names"])
            settings = {
                "elements": sorted(set(atoms.get_chemical_symbols())),
                **numbers,
                "rbf": rbf,
            }
            if rbf == "polynomial":
                # Of more functions the overlap is nearly singular, and what dscribe makes of it is
                # another basis with every library of linear algebra.
                settings["n_max"] = min(5, settings["n_max"])
            arrays["names"].append(f"{name}, {rbf}")
            arrays["settings"].append(json.dumps(settings))
            arrays[f"numbers_{k}"], arrays[f"positions_{k}"] = atoms.numbers, atoms.positions
            arrays[f"cell_{k}"], arrays[f"pbc_{k}"] = atoms.cell.array, atoms.pbc
            options = {**settings, "species": settings["elements"]}
            del options["elements"]
            for average in ("off", "outer", "inner"):
                soap = SOAP(average=average, periodic=bool(atoms.pbc.any()), **options)
                arrays[f"{average}_{k}"] = soap.create(atoms)
    np.savez_compressed(Path(__file__).with_name("soap_dscribe.npz"), **arrays)


if __name__ == "__main__":
    main()
