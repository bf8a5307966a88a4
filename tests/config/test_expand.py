"""Expansion: two lines in, everything out; the result is its own expansion; all errors at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from aiida_autopipe.config.expand import expand, load_config, merge
from aiida_autopipe.config.goals import GOALS, goal_table
from aiida_autopipe.config.heuristics import melting_point, melting_points, resolve, supercell
from aiida_autopipe.config.loading import dump_config, parse_input
from aiida_autopipe.config.models import Config
from aiida_autopipe.core.ace.settings import FitSettings
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.recipe import check_recipe
from aiida_autopipe.core.material import read_material
from aiida_autopipe.core.stopping import StopRule

TWO_LINES = {"material": "Si", "goal": "elastic"}
PROTOCOLS = ("fast", "balanced", "stringent")
MATERIALS = ("Si", "Cu", "Fe", "Mg")
OTHERS: tuple[str | dict[str, Any], ...] = ("NaCl", "FeNi", "H2O")
HERE = Path(__file__).parent
FITTING: dict[str, Any] = {
    "alloy": "FeNi",
    "molecule": "H2O",
    "reaction": {"reactants": "hcn.xyz", "products": "hnc.xyz"},
}


def problems(user: dict[str, Any], base: Path = Path()) -> list[str]:
    """The lines of the error that an input gives."""
    with pytest.raises(InputError) as caught:
        expand(user, base, "run")
    return str(caught.value).split("\n")


CASES = [
    *((m, g, "fast") for m in (*MATERIALS, *OTHERS) for g in GOALS),
    *((m, g, p) for m in ("Cu", "NaCl", "FeNi") for g in GOALS for p in PROTOCOLS[1:]),
]


@pytest.mark.parametrize(("material", "goal", "protocol"), CASES, ids=str)
def test_expansion_is_its_own_expansion(
    material: str | dict[str, Any], goal: str, protocol: str
) -> None:
    user = {"material": material, "goal": goal, "protocol": protocol}
    try:
        config = expand(user, Path(), "some run")
    except InputError as error:
        assert str(error).startswith(f"goal: '{goal}' is for ")
        assert "\n" not in str(error)
        return
    assert config.name == "some-run"
    dumped = config.model_dump()
    assert expand(dumped, Path("/elsewhere"), "other") == config
    assert parse_input(dump_config(dumped), "x") == dumped
    assert Config.model_validate(dumped) == config


def test_every_goal_fits_a_material_and_every_material_a_goal() -> None:
    assert tuple(goal_table()) == GOALS
    for goal in GOALS:
        material = FITTING.get(goal, "Si")
        assert expand({"material": material, "goal": goal}, HERE, "x").goal == goal


def test_two_lines_are_enough() -> None:
    config = expand(TWO_LINES, Path(), "silicon")
    assert config.protocol == "balanced"
    assert 5.0 <= config.train.cutoff <= 5.6
    assert config.md.supercell == [2, 2, 2]
    assert config.label.spin is False
    assert config.validation.properties[-1] == "vacancy_formation_energy"
    assert expand({**TWO_LINES, "material": "Fe"}, Path(), "x").label.spin is True


def test_descriptors_of_md() -> None:
    def md(value: Any) -> dict[str, Any]:
        return {**TWO_LINES, "md": {"descriptors": value}}

    assert expand(TWO_LINES, Path(), "x").md.descriptors is None
    config = expand(md({"descriptor": "soap", "settings": {"n_max": 6}}), Path(), "x")
    assert config.model_dump()["md"]["descriptors"] == {
        "descriptor": "soap",
        "average": True,
        "settings": {"n_max": 6},
    }
    assert expand(config.model_dump(), Path(), "x") == config
    assert problems(md({"average": True})) == [
        "md.descriptors.descriptor: this key is missing; valid: soap, ace"
    ]
    assert problems(md({"descriptor": "soup"})) == [
        "md.descriptors.descriptor: 'soup' is not a valid choice; did you mean 'soap'? valid: "
        "soap, ace"
    ]
    assert problems(md({"descriptor": "soap", "settings": {"nmax": 6}})) == [
        "md.descriptors: 'nmax' is no setting of the descriptor 'soap'; did you mean 'n_max'."
    ]


def test_sections_fit_what_they_are_handed_to() -> None:
    config = expand(TWO_LINES, Path(), "silicon")
    settings = config.train.fit_settings()
    accepted = FitSettings.from_dict(settings).to_dict()
    assert {key: accepted[key] for key in settings} == settings
    check_recipe(config.generate.recipe)
    StopRule(
        min_generations=config.loop.min_generations,
        max_generations=config.loop.max_generations,
        max_labels=config.budget.labels,
        max_hours=config.budget.hours,
        **config.loop.stop.model_dump(),
    )


def test_the_user_has_the_last_word() -> None:
    user = parse_input(
        "material: Si\ngoal: elastic\nname: own\nmd: {temperatures_K: [50]}\n"
        "label: {scf_threshold_Ry_per_atom: 1e-6}\nbudget:\nloop: {stop: }\n",
        "x",
    )
    config = expand(user, Path(), "silicon")
    assert config.name == "own"
    assert config.md.temperatures_K == [50.0]
    assert config.md.steps == 20000
    assert config.label.scf_threshold_Ry_per_atom == 1e-6
    assert config.budget.labels == 300
    assert config.loop.stop.survival == 0.95


def test_structure_file_and_pseudopotential_folder(tmp_path: Path) -> None:
    write(tmp_path / "sic.cif", bulk("SiC", "zincblende", a=4.36))
    (tmp_path / "upf").mkdir()
    text = "material: sic.cif\ngoal: elastic\nlabel: {pseudopotentials: upf}\n"
    (tmp_path / "sic.yaml").write_text(text)
    config, material = load_config(tmp_path / "sic.yaml")
    assert config.material == "sic.cif"
    assert material.elements == ["C", "Si"]
    assert config.label.pseudopotentials == str(tmp_path / "upf")
    assert "vacancy_formation_energy" not in config.validation.properties


def test_merge_replaces_lists_and_keeps_its_arguments() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert merge(base, {"a": {"c": [3]}, "d": {"e": 1}}) == {
        "a": {"b": 1, "c": [3]},
        "d": {"e": 1},
    }
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 3}


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"material": "Sj"}, "material: unknown element 'Sj'; did you mean 'Si'?"),
        ({"material": None}, "material: this key is missing"),
        ({"material": {"Fe": 0.5}}, "material: the fractions of Fe add up to 0.5, not to 1"),
        ({"material": {"Fe": 0.5, "Nj": 0.5}}, "'Nj' is no chemical element; did you mean 'Ni'?"),
        ({"material": {"molecule": "H2OX"}}, "ASE knows no molecule 'H2OX'; near are H2O"),
        ({"material": "MoS2"}, "no crystal structure is known for this formula"),
        ({"material": 14}, "material: 14 must be an element"),
        ({"goal": "molecule"}, "goal: 'molecule' is for a molecule, and 'Si' is an element"),
        ({"goal": "alloy"}, "goal: 'alloy' is for an alloy or a compound, and 'Si' is an element"),
        ({"material": "H2O", "goal": "surface"}, "goal: 'surface' is for a crystal or an alloy"),
        ({"generate": {"recipe": {"ratle": {}}}}, "there is no generator 'ratle'; did you mean"),
        ({"generate": {"recipe": {"rattle": {"copys": 1}}}}, "generate.recipe: rattle: 'copys'"),
        ({"train": {"cutoff": {"neighbours": -1}}}, "train.cutoff: {'neighbours': -1} must be"),
        ({"md": {"temperatures_K": [[300]]}}, "must be a temperature, or a ramp [from, to]"),
        ({"md": {"temperatures_K": [[300, 0]]}}, "md.temperatures_K[0]: 0 must be greater than 0"),
        ({"material": "gone.cif"}, "gone.cif does not exist"),
        ({"goal": "elastik"}, "goal: 'elastik' is not a valid choice; did you mean 'elastic'?"),
        ({"goal": None}, "goal: None is not a valid choice; valid: elastic, thermoelastic"),
        ({"protocol": "fats"}, "did you mean 'fast'? valid: fast, balanced, stringent"),
        ({"seed": -1}, "seed: -1 must be at least 0"),
        ({"name": "a/b"}, "name: 'a/b' must be letters, digits"),
        ({"budget": {"labels": 0}}, "budget.labels: 0 must be greater than 0"),
        ({"budget": {"labels": 1}}, "budget.labels: 1 is too few"),
        ({"budget": {"hours": 0}}, "budget.hours: 0 must be greater than 0"),
        ({"budget": 80}, "budget: 80 must be a block of keys (labels, hours)"),
        (
            {"label": {"cutof_wfc_Ry": 30}},
            "label.cutof_wfc_Ry: unknown key; did you mean 'cutoff_wfc_Ry'?",
        ),
        ({"label": {"spin": 1}}, "label.spin: 1 must be true or false"),
        ({"label": {"smearing": "gauss"}}, "did you mean 'gaussian'? valid: none, gaussian"),
        ({"label": {"code": "pw"}}, "label.code: 'pw' must be a code label such as pw@localhost"),
        ({"label": {"cutoff_wfc_Ry": "30 Ry"}}, "label.cutoff_wfc_Ry: '30 Ry' must be a number"),
        ({"label": {"cutoff_wfc_Ry": 30, "cutoff_rho_Ry": 60}}, "must be at least 4 times"),
        ({"md": {"temperatures_K": [300, -300]}}, "md.temperatures_K[1]: -300 must be greater"),
        ({"md": {"temperatures_K": 300}}, "md.temperatures_K: 300 must be a list"),
        (
            {
                "md": {
                    "schedule": [
                        {"ensemble": "npt", "temperature_K": 300, "strain_rate_per_ps": {"x": 0.1}}
                    ]
                }
            },
            "needs the coupling aniso, not iso",
        ),
        ({"md": {"temperatures_K": []}}, "temperatures_K and schedule are both empty"),
        (
            {"md": {"temperature": 300}},
            "md.temperature: unknown key; did you mean 'temperatures_K'?",
        ),
        ({"md": {"steps": 0}}, "md.steps: 0 must be greater than 0"),
        ({"md": {"steps": 1.5}}, "md.steps: 1.5 must be a whole number"),
        ({"md": {"gamma_halt": 1.0}}, "gamma_halt (1.0) must be greater than gamma_select (1.5)"),
        ({"md": {"gamma_select": "auto", "gamma_halt": -1}}, "md.gamma_halt: -1 must be a finite"),
        ({"md": {"gamma_select": "car"}}, "md.gamma_select: 'car' must be a number, or 'auto'"),
        (
            {"md": {"uncertainty": "committee", "interface": "ml-pace"}},
            "md: uncertainty: ML-PACE has no committee",
        ),
        (
            {"md": {"uncertainty": "committee"}, "train": {"trainer": "autopipe.pacemaker"}},
            "md.uncertainty: potentials of 'autopipe.pacemaker' have no committee",
        ),
        (
            {"md": {"uncertainty": "committee"}, "train": {"trainer": "autopipe.mace"}},
            "md.uncertainty: potentials of 'autopipe.mace' have no committee",
        ),
        (
            {"md": {"uncertainty": "committee"}, "train": {"posterior": False}},
            "committee needs train.posterior: true",
        ),
        ({"md": {"gamma_every": 10**6}}, "must not be greater than steps"),
        ({"md": {"supercell": [2, 2]}}, "md.supercell: [2, 2] must have at least 3 values"),
        ({"md": {"ensembles": ["nph"]}}, "md.ensembles[0]: 'nph' is not a valid choice"),
        ({"loop": {"stop": {"survival": 2}}}, "loop.stop.survival: 2 must be at most 1"),
        ({"loop": {"max_generations": 1}}, "must not be smaller than min_generations (3)"),
        ({"validate": {"tolerance": float("nan")}}, "validate.tolerance: nan must be"),
        ({"validate": {"properties": ["C99"]}}, "validate.properties[0]: 'C99' is not a property"),
        ({"zzz": 1}, "zzz: unknown key; valid: name, material, goal"),
    ],
)
def test_one_sentence_for_each_mistake(section: dict[str, Any], expected: str) -> None:
    lines = problems({**TWO_LINES, **section})
    assert len(lines) == 1
    assert expected in lines[0]


def test_a_committee_brings_its_thresholds_and_its_posterior() -> None:
    plain = expand(TWO_LINES, Path(), "si")
    assert (plain.md.gamma_select, plain.md.gamma_halt) == (1.5, 10.0)
    assert not plain.train.posterior
    watched = expand({**TWO_LINES, "md": {"uncertainty": "committee"}}, Path(), "si")
    assert (watched.md.gamma_select, watched.md.gamma_halt) == ("auto", "auto")
    assert watched.train.posterior
    numbers = {"uncertainty": "committee", "gamma_select": 0.1, "gamma_halt": 0.5}
    given = expand({**TWO_LINES, "md": numbers}, Path(), "si")
    assert (given.md.gamma_select, given.md.gamma_halt) == (0.1, 0.5)
    again = expand(watched.model_dump(), Path(), "si")
    assert again == watched


def test_all_mistakes_at_once() -> None:
    lines = problems(
        {"material": "Sj", "protocol": "slow", "budget": {"labels": 0}, "md": {"steps": 0}, "a": 1}
    )
    keys = [line.split(":")[0] for line in lines]
    assert keys == ["protocol", "material", "goal", "budget.labels", "md.steps", "a"]


def test_a_missing_goal_names_the_choices() -> None:
    valid = ", ".join(GOALS)
    assert problems({"material": "Si"}) == [f"goal: this key is missing; valid: {valid}"]


def test_a_vacancy_energy_of_a_compound_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "sic.cif", bulk("SiC", "zincblende", a=4.36))
    user = {
        "material": "sic.cif",
        "goal": "elastic",
        "validate": {"properties": ["vacancy_formation_energy"]},
    }
    assert "only defined for materials of one element" in problems(user, tmp_path)[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("phase:bbc", "did you mean 'phase:bcc'"),
        ("surface_energy:1111", "validate.properties[0]: 'surface_energy:1111' is not a property"),
        ("dimer:Si-O", "only defined for elements of the material, Si"),
        ("phase:rocksalt", "not a structure of the composition Si"),
    ],
)
def test_properties_the_material_does_not_have_are_refused(name: str, expected: str) -> None:
    lines = problems({"material": "Si", "goal": "elastic", "validate": {"properties": [name]}})
    assert len(lines) == 1 and expected in lines[0]


@pytest.mark.parametrize("symbol", MATERIALS)
@pytest.mark.parametrize("minimum", [1, 8, 16, 40])
def test_supercells_hold_enough_atoms_and_no_row_too_many(symbol: str, minimum: int) -> None:
    material = read_material(symbol, Path())
    repeats = supercell(material, minimum)
    assert len(material.primitive) * np.prod(repeats) >= minimum
    if minimum <= len(material.primitive):
        assert repeats == [1, 1, 1]
    if material.crystal_system == "cubic":
        assert len(set(repeats)) == 1
        smaller = (repeats[0] - 1) ** 3 * len(material.primitive)
        assert smaller < minimum


def test_temperatures_follow_the_melting_point() -> None:
    for goal, hottest in (("elastic", 0.9), ("defects", 0.9), ("melt", 2.0)):
        for symbol in ("Al", "Si", "W", "Na"):
            config = expand({"material": symbol, "goal": goal}, Path(), "x")
            found = config.md.temperatures_K
            assert found == sorted(found)
            assert max(found) < hottest * melting_points()["elements"][symbol]
    quench = expand({"material": "Si", "goal": "melt-quench"}, Path(), "x")
    assert [s.temperature_K for s in quench.md.schedule] == [
        [300.0, 3400.0],
        3400.0,
        [3400.0, 300.0],
        300.0,
    ]


def test_melting_points_of_compounds_and_alloys() -> None:
    assert melting_point(read_material("NaCl", Path())) == 1074
    alloy = read_material({"Fe": 0.5, "Ni": 0.5}, Path())
    assert melting_point(alloy) == pytest.approx((1811 + 1728) / 2)


def test_the_units_of_the_material() -> None:
    silicon = read_material("Si", Path())
    values = {
        "cutoff": {"neighbours": 2.3},
        "repeat": {"cell_atoms": 16},
        "t": [{"melting": 0.5}, 1],
    }
    assert resolve(values, silicon) == {"cutoff": 5.4, "repeat": [2, 2, 2], "t": [800.0]}
    own = expand({**TWO_LINES, "train": {"cutoff": {"neighbours": 2.0}}}, Path(), "x")
    assert own.train.cutoff == 4.7


def test_spin_and_smearing_follow_from_the_elements() -> None:
    label = expand({"material": {"Fe": 0.5, "Ni": 0.5}, "goal": "alloy"}, Path(), "x").label
    assert label.spin is True and label.smearing_width_Ry == 0.02
    assert expand({"material": "NaCl", "goal": "elastic"}, Path(), "x").label.spin is False
    radical = expand({"material": "CH3", "goal": "molecule"}, Path(), "x").label
    assert radical.spin is True and radical.smearing == "gaussian"
    assert expand({"material": "H2O", "goal": "molecule"}, Path(), "x").md.timestep_fs == 0.5


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"validate": {"properties": ["C11"]}}, "'C11' is a property of crystals"),
        ({"md": {"ensembles": ["npt"]}}, "'npt' needs a periodic crystal"),
        ({"md": {"supercell": [2, 1, 1]}}, "md.supercell: must be [1, 1, 1]"),
        ({"md": {"include_vacancy": True}}, "md.include_vacancy: must be false"),
        (
            {
                "md": {
                    "schedule": [{"ensemble": "nvt", "temperature_K": 300}],
                    "schedule_supercell": [2, 2, 2],
                }
            },
            "md.schedule_supercell: must be null",
        ),
    ],
)
def test_a_molecule_is_no_crystal(section: dict[str, Any], expected: str) -> None:
    lines = problems({"material": "H2O", "goal": "molecule", **section})
    assert len(lines) == 1 and expected in lines[0]
