import dataclasses
import json
import zipfile
from math import copysign

import numpy as np
import pytest
from ase.build import bulk

from aiida_autopipe.core.ace.basis import build_basis
from aiida_autopipe.core.ace.embedding import Embedding
from aiida_autopipe.core.ace.functions import BasisSettings
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.potential_text import number_text, read_yaml
from aiida_autopipe.core.errors import PotentialFileError


@pytest.fixture
def saved(ternary, tmp_path, rng):
    """Prefix of the files of a potential with an (arbitrary) active set."""
    inverse = {element: rng.normal(size=(400, 400)) for element in ternary.elements}
    potential = dataclasses.replace(ternary, inverse_active_set=inverse)
    suffixes = [path.suffix for path in potential.save(tmp_path / "Si.Ge")]
    assert suffixes == [".yace", ".yaml", ".asi", ".in"]
    return tmp_path / "Si.Ge", potential


@pytest.mark.parametrize("suffix", [".yace", ".yaml"])
def test_round_trip(saved, suffix, alloy):
    prefix, potential = saved
    again = ACEPotential.load(prefix.with_name(prefix.name + suffix))
    np.testing.assert_array_equal(again.coefficients, potential.coefficients)
    for element, matrix in potential.inverse_active_set.items():
        np.testing.assert_array_equal(again.inverse_active_set[element], matrix)
    assert again.basis.functions == potential.basis.functions
    expected, found = potential.evaluate(alloy, gamma=True), again.evaluate(alloy, gamma=True)
    np.testing.assert_array_equal(found.gamma, expected.gamma)
    np.testing.assert_array_equal(found.forces, expected.forces)
    # Reference energies exist in the .yace only.
    lost = 0.0 if suffix == ".yace" else sum(potential.reference_energies[s] for s in alloy.symbols)
    assert found.energy == pytest.approx(expected.energy - lost, rel=1e-12)


def test_yace_alone_round_trip(saved, tmp_path, alloy):
    prefix, potential = saved
    alone = tmp_path / "alone.yace"
    alone.write_bytes(prefix.with_name("Si.Ge.yace").read_bytes())
    first = ACEPotential.load(alone)
    assert first.inverse_active_set is None
    assert first.reference_energies == potential.reference_energies
    assert first.save(tmp_path / "again") == [tmp_path / "again.yace", tmp_path / "again.in"]
    assert (tmp_path / "again.yace").read_text() == alone.read_text()
    expected, found = potential.evaluate(alloy), first.evaluate(alloy)
    assert found.energy == pytest.approx(expected.energy, rel=1e-12)
    scale = np.abs(expected.forces).max()
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-12 * scale)


def test_writes_the_reference_yace(sic_files, tmp_path):
    """From the B-basis file to the same C-tilde functions another program wrote, term by term."""
    ACEPotential.load(sic_files / "SiC_linear.yaml").save(tmp_path / "ours")
    ours, theirs = (
        read_yaml(path).data for path in (tmp_path / "ours.yace", sic_files / "SiC_linear.yace")
    )
    assert ours.keys() == theirs.keys()
    for key in set(ours) - {"functions"}:
        assert ours[key] == theirs[key]
    for k in (0, 1):
        assert len(ours["functions"][k]) == len(theirs["functions"][k])
        for mine, other in zip(ours["functions"][k], theirs["functions"][k], strict=True):
            np.testing.assert_allclose(mine.pop("ctildes"), other.pop("ctildes"), rtol=1e-12)
            assert mine == other


def test_rewrites_the_reference_bbasis(sic_files, tmp_path):
    ACEPotential.load(sic_files / "SiC_linear.yaml").save(tmp_path / "ours")
    ours, theirs = (
        read_yaml(path).data for path in (tmp_path / "ours.yaml", sic_files / "SiC_linear.yaml")
    )
    assert ours["global"] == theirs["global"]
    blocks = {block["speciesblock"]: block for block in theirs["species"]}
    assert [block["speciesblock"] for block in ours["species"]] == ["C", "Si", "C Si", "Si C"]
    for block in ours["species"]:
        other = blocks[block["speciesblock"]]
        key = json.dumps
        assert sorted(block.pop("nbody"), key=key) == sorted(other.pop("nbody"), key=key)
        assert block == other


def test_three_elements_have_blocks_of_their_own(tmp_path):
    basis = build_basis(BasisSettings(("Al", "Ni", "Si"), cutoff=4.0, max_functions=80))
    potential = ACEPotential(basis, np.linspace(-1, 1, basis.n_functions))
    potential.save(tmp_path / "p")
    names = [b["speciesblock"] for b in read_yaml(tmp_path / "p.yaml").data["species"]]
    assert {"Al", "Al Ni", "Ni Al", "Al Ni Si", "Ni Al Si", "Si Al Ni"} <= set(names)
    atoms = bulk("NaCl", "rocksalt", a=4.6)
    atoms.symbols = ["Al", "Ni"]
    again = ACEPotential.load(tmp_path / "p.yaml")
    np.testing.assert_array_equal(again.coefficients, potential.coefficients)
    assert again.evaluate(atoms).energy == potential.evaluate(atoms).energy
    assert ACEPotential.load(tmp_path / "p.yace").evaluate(atoms).energy == pytest.approx(
        potential.evaluate(atoms).energy, rel=1e-12
    )


def test_radial_coefficients_mix_functions(sic_files, tmp_path, alloy):
    """R_nl = sum_k crad g_k: swapping two rows of crad equals swapping n in the functions."""
    text = (sic_files / "SiC_linear.yace").read_text().replace("Si]", "Ge]")
    (tmp_path / "a.yace").write_text(text)
    first = ", ".join(["[1, 0, 0, 0, 0, 0]"] * 4)
    second = ", ".join(["[0, 1, 0, 0, 0, 0]"] * 4)
    assert first in text and second in text
    swapped = text.replace(first, "@").replace(second, first).replace("@", second)
    (tmp_path / "b.yace").write_text(swapped)
    a, b = (ACEPotential.load(tmp_path / name) for name in ("a.yace", "b.yace"))
    c = a.basis
    exchange = {1: 2, 2: 1}
    functions = [
        f if f.rank == 1 else dataclasses.replace(f, ns=tuple(exchange.get(n, n) for n in f.ns))
        for f in c.functions
    ]
    exchanged = ACEPotential(dataclasses.replace(c, functions=tuple(functions)), a.coefficients)
    alloy.symbols = ["C", "Ge"] * 4
    alloy.set_cell(alloy.cell * 1.3, scale_atoms=True)
    assert b.evaluate(alloy).energy == pytest.approx(exchanged.evaluate(alloy).energy, rel=1e-12)


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1.0, -3.0, 0.1, 1e-5, 1e22, -2.5e-300, 1 / 3, 123456.789]
)
def test_numbers_survive_text(value, tmp_path):
    (tmp_path / "n.yaml").write_text(f"x: {number_text(value)}\n")
    found = read_yaml(tmp_path / "n.yaml").data["x"]
    assert isinstance(found, int | float)
    assert found == value
    assert copysign(1, found) == copysign(1, value)


# What a change in the text of SiC_linear.yace or .yaml is answered with.
REPLACEMENTS = {
    "embedding": ("yace", "FinnisSinclairShiftedScaled", "Morse", "embeddings, 0: .*npoti 'Morse'"),
    "densities": (
        "yace",
        "ndensity: 1, FS",
        "ndensity: 2, FS",
        r"FS_parameters \[1.0, 1.0\] must have two entries for each of the 2 densities",
    ),
    "functions' densities": (
        "yace",
        "FS_parameters: [1, 1]",
        "FS_parameters: [1, 1, 1, 1]",
        "for each of the 1 densities",
    ),
    "exponent": ("yace", "FS_parameters: [1, 1]", "FS_parameters: [1, 0]", "0: .*exponent 0.0"),
    "core step": (
        "yace",
        "drho_core_cutoff: 250",
        "drho_core_cutoff: -2",
        "embeddings, 0: rho_core_cutoff",
    ),
    "no core step": ("yace", ", rho_core_cutoff: 100000", "", "'rho_core_cutoff' is missing"),
    "radial": ("yace", "ChebExpCos", "Wavelet", r"bonds, \[0, 0\]: .*'Wavelet'"),
    "ACE.jl": ("yace", "ChebExpCos", "ACE.jl.base", r"\[0, 0\]: radbasename 'ACE.jl.base'"),
    "inner": ("yace", "inner_cutoff_type: distance", "inner_cutoff_type: hard", "type 'hard'"),
    "inner width": ("yace", "dcut_in: 0", "dcut_in: -0.5", r"dcut_in\) = -0.5"),
    "radparameters": ("yace", "radparameters: [5.25]", "radparameters: []", "one entry"),
    "radparameters 2": ("yace", "radparameters: [5.25]", "radparameters: [5.25, 1]", "one entry"),
    "element": ("yace", "[C, Si]", "[C, Sx]", "elements"),
    "E0": ("yace", "E0: [0, 0]", "E0: [0]", "E0 has 1 entries"),
    "missing": ("yace", "deltaSplineBins: 0.001\n", "", "'deltaSplineBins' is missing"),
    "bins": ("yace", "deltaSplineBins: 0.001", "deltaSplineBins: 1e-12", "deltaSplineBins = 1e-12"),
    "bond": ("yace", "[1, 0]: {nradmax", "[1, 7]: {nradmax", r"bonds: key \[1, 7\] is unknown"),
    "huge": ("yace", "lmax: 3", "lmax: 99999999", "lmax = 99999999"),
    "shape": ("yace", "nradmax: 3", "nradmax: 2", "radcoefficients has the shape"),
    "nan": ("yace", "rcut: 6,", "rcut: .nan,", "finite"),
    "words": ("yace", "ns: [1]", "ns: [one]", "must hold numbers"),
    "fractions": ("yace", "ns: [1]", "ns: [1.5]", "'ns' must hold whole numbers"),
    "no list": ("yace", "  1:\n    - {", "  1: 7\n  5:\n    - {", "key '5' is unknown here"),
    "no list of blocks": (
        "yaml",
        "species:\n",
        "species: {a: 1}\nauxdata:\n",
        "'species' must be a list",
    ),
    "no text": (
        "yace",
        "radbasename: ChebExpCos",
        "radbasename: 3",
        "'radbasename' = 3 must be text",
    ),
    "rank": ("yace", "rank: 1,", "rank: 2,", "contradict"),
    "n": ("yace", "ns: [1, 1]", "ns: [1, 44]", "n = 44"),
    "terms": ("yace", "num_ms_combs: 2,", "num_ms_combs: 3,", "num_ms_combs = 3"),
    "ms": ("yace", "[0, 0, 1, -1]", "[0, 0, 1, 1]", "sum zero"),
    "mus": ("yace", "mus: [1]", "mus: [5]", "unknown elements"),
    "python": ("yace", "E0: [0, 0]", "E0: !!python/object/apply:os.getcwd []", "not valid YAML"),
    "list": ("yace", "embeddings:", "embeddings: [1]\nlmax:", "lmax' is unknown"),
    "list 2": ("yace", "embeddings:", "embeddings: [1]\nmetadata:", "must be a mapping"),
    "key": ("yace", "E0: [0, 0]", "E0: [0, 0]\nlmax: 3", "key 'lmax' is unknown here and cannot"),
    "embedding key": ("yace", "{ndensity: 1", "{a: 1, ndensity: 1", "embeddings, 0: key 'a' is"),
    "third embedding": ("yace", "bonds:", "  2: {}\nbonds:", "embeddings: key '2' is unknown"),
    "bond key": ("yace", "{nradmax: 3", "{b: 1, nradmax: 3", r"bonds, \[0, 0\]: key 'b' is"),
    "function key": ("yace", "{mu0: 0,", "{d: 1, mu0: 0,", "functions, 0 entry 1: key 'd' is"),
    "functions of none": ("yace", "functions:", "functions:\n  x: []", "functions: key 'x' is"),
    "rank one twice": (
        "yace",
        "num_ms_combs: 1, mus: [0], ns: [1], ls: [0], ms_combs: [0], ctildes: [",
        "num_ms_combs: 2, mus: [0], ns: [1], ls: [0], ms_combs: [0, 0], ctildes: [1.0, ",
        "num_ms_combs = 1 for rank 1",
    ),
    "b-embedding": ("yaml", "FinnisSinclairShiftedScaled", "Other", "block 'C': .*npoti 'Other'"),
    "b-density": ("yaml", "ndensityi: 1", "ndensityi: 3", "each of the 3 densities"),
    "b-densities": ("yaml", "ndensityi: 1", "ndensityi: 3000000", "each of the 3000000 densities"),
    "b-cutoff": ("yaml", "NameOfCutoffFunctionij: cos", "NameOfCutoffFunctionij: poly", "'poly'"),
    "b-core shape": ("yaml", "core-repulsion: [0, 0]", "core-repulsion: [1]", "two entries"),
    "b-radial": ("yaml", "radbase: ChebExpCos", "radbase: Wavelet", "block 'C': .*'Wavelet'"),
    "b-radparameters": ("yaml", "radparameters: [5.25]", "radparameters: [1, 2]", "one entry"),
    "b-inner": ("yaml", "inner_cutoff_type: distance", "inner_cutoff_type: x", "C': .*type 'x'"),
    "b-type": ("yaml", "type: C C,", "type: C X,", "'C X' is unknown"),
    "b-foreign type": ("yaml", "type: C C,", "type: Si C,", "'Si C' does not belong into this"),
    "b-lint": ("yaml", "lint: [1]", "lint: [1, 1]", "lint"),
    "b-lint 2": ("yaml", "nl: [0, 0], c", "nl: [0, 0], lint: [0], c", r"lint \[0\] must have 0"),
    "b-coupling": ("yaml", "lint: [1]", "lint: [5]", "do not couple"),
    "b-c": ("yaml", "c: [0.011394527151439203]", "c: [0.0, 1.0]", "c has 2 entries, but C has 1"),
    "b-twice": ("yaml", "nr: [2], nl: [0], c", "nr: [1], nl: [0], c", "twice"),
    "b-block": ("yaml", "speciesblock: Si\n", "speciesblock: N\n", "block 'Si' is missing"),
    "b-no block": ("yaml", "speciesblock: C Si\n", "speciesblock: C\n", "block 'C' occurs twice"),
    "b-block name": ("yaml", "speciesblock: Si\n", "speciesblock: Si C Si\n", "each element once"),
    "b-rank": (
        "yaml",
        "nr: [1, 1], nl: [0, 0]",
        "nr: [1, 1, 1, 1, 1, 1, 1], nl: [0, 0]",
        "rank 7 is not supported; only 1 to 6",
    ),
    "b-lengths": ("yaml", "nr: [1, 1], nl: [0, 0]", "nr: [1, 1], nl: [0]", "2 entries each"),
    "b-key": ("yaml", "global:", "E0: [0]\nglobal:", "key 'E0' is unknown"),
    "b-global key": ("yaml", "global:\n", "global:\n  x: 1\n", "global: key 'x' is unknown"),
    "b-block key": ("yaml", "lmaxi:", "kappa: 1\n    lmaxi:", "block 'C': key 'kappa' is unknown"),
    "b-embedding of a pair": (
        "yaml",
        "speciesblock: C Si\n",
        "speciesblock: C Si\n    npoti: FinnisSinclair\n",
        "block 'C Si': key 'npoti' is unknown",
    ),
    "b-function key": ("yaml", "{type: C C,", "{w: 1, type: C C,", "nbody entry 1: key 'w'"),
    "b-skip": ("yaml", "{type: C C,", "{skip: 1, type: C C,", "'skip' = 1 must be true or false"),
}


@pytest.mark.parametrize("name", REPLACEMENTS)
def test_damaged_or_unsupported_files(sic_files, tmp_path, name):
    suffix, old, new, message = REPLACEMENTS[name]
    text = (sic_files / f"SiC_linear.{suffix}").read_text()
    assert old in text
    path = tmp_path / f"bad.{suffix}"
    path.write_text(text.replace(old, new))
    with pytest.raises(PotentialFileError, match=message):
        ACEPotential.load(path)


TWO_ELEMENTS = """
metadata: {user: somebody, starttime: 2021-05-02 20:12:57.987046, _loss: 0.125}
auxdata: {_int: {i: 1}, _double_arr: {a: [1.5, 2]}, _string: {s: text}}
global: {DeltaSplineBins: 0.01}
species:
  - speciesblock: Al Al
    ndensityi: 1
    npoti: FinnisSinclair
    parameters: [1, 0.5]
    lmaxi: 1
    nradmaxi: 2
    nradbaseij: 3
    radbase: ChebPow
    radparameters: [2.0]
    radcoefficients: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    rcutij: 4.5
    dcutij: 0.01
    nbody:
      - {type: Al Al, nr: [1], nl: [0], c: 1.0}
      - {type: Al Al, nr: [2], nl: [0], c: 5.0, skip: true}
      - {type: Al Al Al, nr: [1, 2], nl: [1, 1], lint: [], c: [0.5], skip: false}
  - speciesblock: Ni
    ndensityi: 2
    npoti: FinnisSinclairShiftedScaled
    parameters: [1, 1, 1, 0.5]
    rho_core_cut: 300
    drho_core_cut: 30
    lmaxi: 0
    nradmaxi: 0
    nradbaseij: 2
    radbase: SBessel
    radparameters: [1.0]
    radcoefficients: []
    rcutij: 4.0
    dcutij: 0.01
    NameOfCutoffFunctionij: ""
    core-repulsion: [100, 1.5]
    nbody:
      - {type: Ni Ni, nr: [2], nl: [0], c: [1.0, 2.0]}
  - speciesblock: Al Ni
    lmaxi: 1
    nradmaxi: 1
    nradbaseij: 2
    radbase: ChebExpCos
    radparameters: [3.0]
    radcoefficients: [[[1, 2], [3, 4]]]
    rcutij: 5.0
    dcutij: 0.02
    rho_core_cut: 100000
    drho_core_cut: 250
    nbody:
      - {type: Al Al Ni, nr: [1, 1], nl: [0, 0], c: [0.25]}
  - speciesblock: Ni Al
    core-repulsion: [50, 1]
    r_in: 1.2
    delta_in: 0.2
    nbody:
      - {type: Ni Al, nr: [1], nl: [0], c: [1.0, 0.5]}
"""


def test_what_old_files_leave_out_or_say_otherwise(tmp_path):
    """Defaults, flat radial coefficients, blocks that complete their mirror, functions to skip."""
    (tmp_path / "p.yaml").write_text(TWO_ELEMENTS)
    potential = ACEPotential.load(tmp_path / "p.yaml")
    basis, al, ni = potential.basis, potential.embeddings["Al"], potential.embeddings["Ni"]
    assert [(f.mu0, f.mus, f.ns) for f in basis.functions] == [
        (0, (0,), (1,)),
        (0, (0, 0), (1, 2)),
        (0, (0, 1), (1, 1)),
        (1, (0,), (1,)),
        (1, (1,), (2,)),
    ]
    np.testing.assert_array_equal(
        potential.coefficients, [[1.0, 0], [0.5, 0], [0.25, 0], [1.0, 0.5], [1.0, 2.0]]
    )
    assert (al.rho_core_cutoff, al.drho_core_cutoff) == (100000, 250)
    assert (ni.rho_core_cutoff, ni.drho_core_cutoff) == (300, 30)
    # k runs slowest and l fastest in the flat list.
    assert basis.bonds[0, 0].coefficients[1, 0].tolist() == [3, 7, 11]
    assert basis.bonds[0, 0].coefficients[0, 1].tolist() == [2, 6, 10]
    assert basis.bonds[0, 0].radial.inner_type == "density"
    assert basis.bonds[0, 0].radial.core_repulsion == (0, 0)
    assert basis.bonds[1, 1].coefficients.shape == (0, 1, 2)
    one, other = basis.bonds[0, 1], basis.bonds[1, 0]
    assert one.equals(other)
    assert one.radial.core_repulsion == (50, 1)
    assert (one.radial.inner_cutoff, one.radial.inner_width) == (1.2, 0.2)
    assert one.radial.name == "ChebExpCos"


MIRRORS = {
    "other radial functions": (
        "    core-repulsion: [50, 1]\n    r_in",
        "    lmaxi: 1\n    nradmaxi: 1\n    nradbaseij: 2\n    radbase: ChebExpCos\n"
        "    radparameters: [3.5]\n    radcoefficients: [[[1, 2], [3, 4]]]\n    rcutij: 5.0\n"
        "    dcutij: 0.02\n    core-repulsion: [50, 1]\n    r_in",
        "blocks 'Al Ni' and 'Ni Al' differ in radial functions",
    ),
    "other core repulsion": (
        "    rho_core_cut: 100000\n",
        "    core-repulsion: [51, 1]\n    r_in: 1.2\n    delta_in: 0.2\n    rho_core_cut: 100000\n",
        "blocks 'Al Ni' and 'Ni Al' differ",
    ),
    "radial functions in part": (
        "    core-repulsion: [50, 1]\n",
        "    radbase: SBessel\n    core-repulsion: [50, 1]\n",
        "'Ni Al': 'radbase' without 'lmaxi' defines the radial functions only in part",
    ),
    "no radial functions": (
        "    lmaxi: 1\n    nradmaxi: 1\n    nradbaseij: 2\n    radbase: ChebExpCos\n"
        "    radparameters: [3.0]\n    radcoefficients: [[[1, 2], [3, 4]]]\n    rcutij: 5.0\n"
        "    dcutij: 0.02\n",
        "",
        "block 'Ni Al': key 'lmaxi' is missing",
    ),
    "no block": (
        "  - speciesblock: Ni Al\n    core-repulsion: [50, 1]\n    r_in: 1.2\n    delta_in: 0.2\n",
        "  - speciesblock: Ni Al Cu\n",
        "block 'Cu' is missing",
    ),
    "no block of a pair": (
        "    nbody:\n      - {type: Ni Al, nr: [1], nl: [0], c: [1.0, 0.5]}\n",
        "    nbody: []\n  - speciesblock: Al Al Ni\n",
        "speciesblock 'Al Al Ni' must name each element once",
    ),
    "several types of inner cutoff": (
        "    r_in: 1.2\n",
        "    inner_cutoff_type: distance\n    r_in: 1.2\n",
        r"inner_cutoff_type differs between pairs of elements \(density, distance\)",
    ),
}


@pytest.mark.parametrize("name", MIRRORS)
def test_blocks_that_do_not_fit_together(tmp_path, name):
    old, new, message = MIRRORS[name]
    assert old in TWO_ELEMENTS
    (tmp_path / "p.yaml").write_text(TWO_ELEMENTS.replace(old, new))
    with pytest.raises(PotentialFileError, match=message):
        ACEPotential.load(tmp_path / "p.yaml")


def test_function_of_a_pair_without_block(tmp_path):
    """A block of three elements cannot use the radial functions of a block that is not there."""
    start, end = (TWO_ELEMENTS.index(f"  - speciesblock: {name}\n") for name in ("Al Al", "Ni"))
    one = TWO_ELEMENTS[start:end]
    text = TWO_ELEMENTS[:start] + "".join(one.replace("Al", name) for name in ("Al", "Cu", "Ni"))
    (tmp_path / "p.yaml").write_text(text)
    assert ACEPotential.load(tmp_path / "p.yaml").elements == ["Al", "Cu", "Ni"]
    text += "  - speciesblock: Al Cu Ni\n    nbody:\n"
    text += "      - {type: Al Cu Ni, nr: [1, 1], nl: [0, 0], c: [1.0]}\n"
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(PotentialFileError, match="with the radial functions is missing"):
        ACEPotential.load(tmp_path / "p.yaml")


def test_couplings_of_a_hostile_file_are_bounded(tmp_path):
    text = TWO_ELEMENTS.replace("lmaxi: 1\n    nradmaxi: 2", "lmaxi: 60\n    nradmaxi: 2").replace(
        "radcoefficients: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]",
        f"radcoefficients: {[[[1, 2, 3]] * 61] * 2}",
    )
    function = "{type: Al Al Al Al Al Al, nr: [1, 1, 1, 1, 1], nl: [60, 60, 60, 60, 60], "
    text = text.replace(
        "- {type: Al Al, nr: [1]",
        f"- {function}lint: [0, 0, 60], c: 1.0}}\n      - {{type: Al Al, nr: [1]",
    )
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(PotentialFileError, match="too many combinations of m"):
        ACEPotential.load(tmp_path / "p.yaml")


@pytest.mark.parametrize("suffix", ["yace", "yaml"])
def test_truncated_file(sic_files, tmp_path, suffix):
    text = (sic_files / f"SiC_linear.{suffix}").read_text()
    path = tmp_path / f"cut.{suffix}"
    for fraction in (0.0, 0.01, 0.03, 0.3, 0.8):
        path.write_text(text[: int(fraction * len(text))])
        with pytest.raises(PotentialFileError):
            ACEPotential.load(path)


def test_files_that_are_no_potentials(tmp_path):
    with pytest.raises(PotentialFileError, match="cannot be read"):
        ACEPotential.load(tmp_path / "absent.yace")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(PotentialFileError, match="cannot be read"):
        ACEPotential.load(tmp_path / "binary.yaml")
    with pytest.raises(PotentialFileError, match=r"ends in \.yace or \.yaml"):
        ACEPotential.load(tmp_path / "potential.model")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 300000,
        "- " * 300000,
        "a: &x [1, 2]\nb: [*x, *x]\n",
        "a: *x\n",
        "a: !!python/name:os.system\n",
        "a: !!float [1]\n",
        "a: 1\na: 2\n",
        "? {a: 1}\n: 2\n",
    ],
)
def test_hostile_yaml(tmp_path, text):
    (tmp_path / "p.yace").write_text(text)
    with pytest.raises(PotentialFileError):
        ACEPotential.load(tmp_path / "p.yace")


def test_values_of_yaml(tmp_path):
    (tmp_path / "v.yaml").write_text(
        "a: [1, -2.5, 1e-5, +3, .inf, No, y, true, ~, '1', 2026-11-22]\n[0, 1]: x\nb:\n"
    )
    assert read_yaml(tmp_path / "v.yaml").data == {
        "a": [1, -2.5, 1e-5, 3, float("inf"), "No", "y", True, None, "1", "2026-11-22"],
        (0, 1): "x",
        "b": None,
    }


def test_files_of_two_potentials(saved):
    prefix, potential = saved
    other = dataclasses.replace(potential, coefficients=potential.coefficients * 1.1)
    (prefix.parent / "other").mkdir()
    other.save(prefix.parent / "other" / "Si.Ge")
    (prefix.parent / "other" / "Si.Ge.yace").replace(prefix.with_name("Si.Ge.yace"))
    with pytest.raises(PotentialFileError, match="different potentials"):
        ACEPotential.load(prefix.with_name("Si.Ge.yace"))


@pytest.mark.parametrize(
    "change",
    [
        {"embeddings": {"Si": Embedding((1.0, 0.5))}},
        {"embeddings": {"Si": Embedding(rho_core_cutoff=5000.0)}},
        {"basis": "core"},
    ],
)
def test_files_that_differ_beyond_the_functions(saved, change):
    prefix, potential = saved
    if "basis" in change:
        bond = potential.basis.bonds[1, 1]
        radial = dataclasses.replace(bond.radial, core_repulsion=(1.0, 1.0))
        bonds = {**potential.basis.bonds, (1, 1): dataclasses.replace(bond, radial=radial)}
        change = {"basis": dataclasses.replace(potential.basis, bonds=bonds)}
    other = dataclasses.replace(potential, **change)
    (prefix.parent / "other").mkdir()
    other.save(prefix.parent / "other" / "Si.Ge")
    (prefix.parent / "other" / "Si.Ge.yace").replace(prefix.with_name("Si.Ge.yace"))
    with pytest.raises(PotentialFileError, match="different potentials"):
        ACEPotential.load(prefix.with_name("Si.Ge.yace"))


def test_active_sets_that_do_not_fit(saved):
    prefix, potential = saved
    good, path = potential.inverse_active_set, prefix.with_name("Si.Ge.asi")

    def load(**arrays):
        with path.open("wb") as stream:
            np.savez(stream, **arrays)
        return ACEPotential.load(prefix.with_name("Si.Ge.yaml"))

    with pytest.raises(PotentialFileError, match="no active set for Si"):
        load(Ge=good["Ge"])
    with pytest.raises(PotentialFileError, match="400 x 400"):
        load(Ge=good["Ge"], Si=np.zeros((500, 500)))
    with pytest.raises(PotentialFileError, match="active set of Al belongs to another"):
        load(Al=np.eye(3), **good)
    with pytest.raises(PotentialFileError, match=r"\(400, 300\), expected \(400, 400\)"):
        load(Ge=good["Ge"], Si=good["Si"][:, :300])
    with pytest.raises(PotentialFileError, match="float32"):
        load(Ge=good["Ge"], Si=good["Si"].astype(np.float32))
    with pytest.raises(PotentialFileError, match="finite"):
        load(Ge=good["Ge"], Si=good["Si"] * np.nan)
    with pytest.raises(PotentialFileError, match="damaged"):
        load(Ge=good["Ge"], Si=np.array([{"a": 1}], dtype=object))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(PotentialFileError, match="truncated or damaged"):
        ACEPotential.load(prefix.with_name("Si.Ge.yaml"))


def test_active_set_file_is_what_lammps_reads(saved):
    prefix, potential = saved
    with zipfile.ZipFile(prefix.with_name("Si.Ge.asi")) as archive:
        assert {info.filename for info in archive.infolist()} == {"Ge.npy", "Si.npy"}
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    with np.load(prefix.with_name("Si.Ge.asi")) as arrays:
        assert arrays["Si"].flags.c_contiguous
        np.testing.assert_array_equal(arrays["Si"], potential.inverse_active_set["Si"])


def test_other_radial_bases_round_trip(tmp_path):
    basis = build_basis(
        BasisSettings(
            ("Cu",),
            cutoff=4.5,
            radial="SBessel",
            max_functions=40,
            inner_cutoff=1.2,
            inner_width=0.4,
        )
    )
    potential = ACEPotential(basis, np.linspace(-1, 1, 40), {"Cu": -0.25})
    potential.save(tmp_path / "Cu")
    atoms = bulk("Cu") * (2, 1, 1)
    atoms.rattle(0.05, seed=1)
    for suffix, shift in ((".yace", 0.0), (".yaml", 0.5)):
        again = ACEPotential.load(tmp_path / f"Cu{suffix}")
        radial = again.basis.bonds[0, 0].radial
        assert radial == basis.bonds[0, 0].radial
        assert (radial.name, radial.inner_cutoff, radial.inner_width) == ("SBessel", 1.2, 0.4)
        assert again.evaluate(atoms).energy - shift == pytest.approx(
            potential.evaluate(atoms).energy, rel=1e-12
        )


def test_files_of_a_potential_appear_together_or_not_at_all(saved, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "x.yace").write_text("older")
    (folder / "x.asi").mkdir()
    with pytest.raises(IsADirectoryError):
        saved[1].save(folder / "x")
    assert sorted(path.name for path in folder.iterdir()) == ["x.asi", "x.yace"]
    assert (folder / "x.yace").read_text() == "older"
    (folder / "x.asi").rmdir()
    paths = saved[1].save(folder / "x")
    assert sorted(folder.iterdir()) == sorted(paths)
    assert ACEPotential.load(folder / "x.yace").has_active_set
