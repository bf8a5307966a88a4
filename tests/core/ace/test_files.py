import dataclasses
import json
import zipfile

import numpy as np
import pytest
from ase.build import bulk

from aiida_autopipe.core.ace.basis import build_basis
from aiida_autopipe.core.ace.functions import BasisSettings
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.potential_text import number_text, read_yaml
from aiida_autopipe.core.errors import PotentialFileError


@pytest.fixture
def saved(ternary, tmp_path, rng):
    """Prefix of the files of a potential with an (arbitrary) active set."""
    inverse = {element: rng.normal(size=(400, 400)) for element in ternary.elements}
    potential = dataclasses.replace(ternary, inverse_active_set=inverse)
    assert [p.suffix for p in potential.save(tmp_path / "Si.Ge")] == [".yace", ".yaml", ".asi"]
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
    assert first.save(tmp_path / "again") == [tmp_path / "again.yace"]
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


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 0.1, 1e-5, 1e22, -2.5e-300, 1 / 3, 123456.789])
def test_numbers_survive_text(value, tmp_path):
    (tmp_path / "n.yaml").write_text(f"x: {number_text(value)}\n")
    found = read_yaml(tmp_path / "n.yaml").data["x"]
    assert isinstance(found, int | float)
    assert found == value


REPLACEMENTS = {
    "embedding": ("yace", "FinnisSinclairShiftedScaled", "Morse", "npoti 'Morse'"),
    "densities": ("yace", "ndensity: 1, FS", "ndensity: 2, FS", "ndensity 2"),
    "FS": ("yace", "FS_parameters: [1, 1]", "FS_parameters: [1, 0.5]", r"FS_parameters \[1.0, 0.5"),
    "radial": ("yace", "ChebExpCos", "Wavelet", "Wavelet"),
    "core": ("yace", "prehc: 0", "prehc: 12", "core-repulsion"),
    "inner": (
        "yace",
        "rcut_in: 0, dcut_in: 0, inner_cutoff_type: distance",
        "rcut_in: 1, dcut_in: 1, inner_cutoff_type: zbl",
        "inner_cutoff_type 'zbl'",
    ),
    "element": ("yace", "[C, Si]", "[C, Sx]", "elements"),
    "E0": ("yace", "E0: [0, 0]", "E0: [0]", "E0 has 1 entries"),
    "missing": ("yace", "deltaSplineBins: 0.001\n", "", "'deltaSplineBins' is missing"),
    "bins": ("yace", "deltaSplineBins: 0.001", "deltaSplineBins: 1e-12", "deltaSplineBins = 1e-12"),
    "bond": ("yace", "[1, 0]: {nradmax", "[1, 7]: {nradmax", r"key \[1, 0\] is missing"),
    "huge": ("yace", "lmax: 3", "lmax: 99999999", "lmax = 99999999"),
    "shape": ("yace", "nradmax: 3", "nradmax: 2", "radcoefficients has the shape"),
    "nan": ("yace", "rcut: 6,", "rcut: .nan,", "finite"),
    "words": ("yace", "ns: [1]", "ns: [one]", "must hold numbers"),
    "rank": ("yace", "rank: 1,", "rank: 2,", "contradict"),
    "n": ("yace", "ns: [1, 1]", "ns: [1, 44]", "n = 44"),
    "terms": ("yace", "num_ms_combs: 2,", "num_ms_combs: 3,", "num_ms_combs = 3"),
    "ms": ("yace", "[0, 0, 1, -1]", "[0, 0, 1, 1]", "sum zero"),
    "mus": ("yace", "mus: [1]", "mus: [5]", "unknown elements"),
    "python": ("yace", "E0: [0, 0]", "E0: !!python/object/apply:os.getcwd []", "not valid YAML"),
    "list": ("yace", "embeddings:", "embeddings: [1]\nx:", "must be a mapping"),
    "b-embedding": ("yaml", "FinnisSinclairShiftedScaled", "Other", "npoti 'Other'"),
    "b-density": ("yaml", "ndensityi: 1", "ndensityi: 3", "ndensity 3"),
    "b-cutoff": ("yaml", "NameOfCutoffFunctionij: cos", "NameOfCutoffFunctionij: poly", "'poly'"),
    "b-core": ("yaml", "core-repulsion: [0, 0]", "core-repulsion: [1, 1]", "core-repulsion"),
    "b-core shape": ("yaml", "core-repulsion: [0, 0]", "core-repulsion: [1]", "two entries"),
    "b-type": ("yaml", "type: C C,", "type: C X,", "'C X' is unknown"),
    "b-lint": ("yaml", "lint: [1]", "lint: [1, 1]", "lint"),
    "b-coupling": ("yaml", "lint: [1]", "lint: [5]", "do not couple"),
    "b-c": ("yaml", "c: [0.011394527151439203]", "c: [0.0, 1.0]", "c has 2 entries"),
    "b-twice": ("yaml", "nr: [2], nl: [0], c", "nr: [1], nl: [0], c", "twice"),
    "b-block": ("yaml", "speciesblock: Si\n", "speciesblock: Si C Si\n", "block 'Si' is missing"),
    "b-rank": ("yaml", "nr: [1, 1], nl: [0, 0]", "nr: [1, 1, 1, 1, 1, 1], nl: [0, 0]", "rank 6"),
    "b-lengths": ("yaml", "nr: [1, 1], nl: [0, 0]", "nr: [1, 1], nl: [0]", "2 entries each"),
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
    with pytest.raises(PotentialFileError, match=r"\(400, 300\)"):
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
