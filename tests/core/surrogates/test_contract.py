from typing import ClassVar

from ase.build import bulk

from aiida_autopipe.testing import SurrogateContract


def rattled(symbol: str, seed: int):
    atoms = bulk(symbol, cubic=True)
    atoms.rattle(0.1, seed=seed)
    return atoms


class TestEmt(SurrogateContract):
    surrogate = "ase.calculators.emt.EMT"
    bad_keywords: ClassVar = ({"asap": True},)
    structures = (rattled("Cu", 1), rattled("Cu", 2))


class TestChgnet(SurrogateContract):
    """The model itself, with the weights of its package."""

    surrogate = "chgnet"
    bad_keywords: ClassVar = ({"device": "tpu"}, {"models": "0.3.0"})
    structures = (rattled("Si", 1), rattled("Cu", 2))
    unknown = "Am"
    step = 0.02  # energies are of single precision
    force_tolerance = 0.02
