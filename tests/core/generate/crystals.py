"""Real crystals, with measured lattice constants."""

from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal


def quartz() -> Atoms:
    """alpha-quartz, P3_2 21 (Levien, Prewitt and Weidner, Am. Mineral. 65, 920 (1980))."""
    made: Atoms = crystal(
        ["Si", "O"],
        [(0.4697, 0.0, 2 / 3), (0.4135, 0.2669, 0.7857)],
        spacegroup=154,
        cellpar=[4.916, 4.916, 5.4054, 90, 90, 120],
    )
    return made


def ni3al() -> Atoms:
    """The L1_2 phase of Ni3Al."""
    made: Atoms = crystal(
        ["Al", "Ni"],
        [(0, 0, 0), (0.5, 0.5, 0)],
        spacegroup=221,
        cellpar=[3.57, 3.57, 3.57, 90, 90, 90],
    )
    return made


CRYSTALS = {
    "Al": bulk("Al"),
    "Fe": bulk("Fe"),
    "Mg": bulk("Mg"),
    "Si": bulk("Si"),
    "NaCl": bulk("NaCl", "rocksalt", a=5.64),
    "NiAl": bulk("NiAl", "cesiumchloride", a=2.88),
    "Ni3Al": ni3al(),
    "quartz": quartz(),
}
