"""Every generator of ours keeps the contract."""

from ase.build import bulk, molecule

from aiida_autopipe.testing import GeneratorContract

ROCKSALT = bulk("NaCl", "rocksalt", a=5.64)


class TestStrain(GeneratorContract):
    name, crystal = "strain", bulk("Mg")


class TestRattle(GeneratorContract):
    name, crystal = "rattle", bulk("Fe")


class TestVacancies(GeneratorContract):
    name, crystal, settings = "vacancies", ROCKSALT, {"repeat": [2, 2, 2], "copies": 1}


class TestInterstitials(GeneratorContract):
    name, crystal, settings = "interstitials", bulk("Si"), {"repeat": [2, 2, 2]}


class TestAntisites(GeneratorContract):
    name, crystal, settings = "antisites", ROCKSALT, {"repeat": [2, 2, 2]}


class TestSurfaces(GeneratorContract):
    name, crystal, settings = "surfaces", bulk("Al"), {"max_index": 1}


class TestSqs(GeneratorContract):
    name, crystal = "sqs", bulk("Al")
    settings = {"composition": {"Al": 0.5, "Mg": 0.5}, "atoms": 16, "iterations": 2000}  # noqa: RUF012


class TestNormalModes(GeneratorContract):
    name, crystal, settings = "normal_modes", bulk("Al"), {"repeat": [2, 2, 2]}


class TestRandomStructures(GeneratorContract):
    name, crystal, settings = "random_structures", bulk("Al"), {"n": 3}


class TestMelt(GeneratorContract):
    name, crystal = "melt", bulk("Al")
    settings = {  # noqa: RUF012
        "calculator": "ase.calculators.emt.EMT",
        "repeat": [3, 3, 3],
        "melting_point_K": 2000.0,
        "melt_steps": 150,
        "liquid_steps": 9,
        "quench_steps": 9,
        "timestep_fs": 3.0,
    }


class TestDimers(GeneratorContract):
    name, crystal = "dimers", ROCKSALT


class TestShortPairs(GeneratorContract):
    name, crystal = "short_pairs", ROCKSALT


class TestMolecules(GeneratorContract):
    name, crystal, settings = "molecules", molecule("CH3CH2OH"), {"n": 3}


class TestReactionPath(GeneratorContract):
    name, crystal = "reaction_path", molecule("CH3Cl")
    settings = {"entering": "F", "leaving": "Cl", "images": 3, "charge": -1}  # noqa: RUF012
