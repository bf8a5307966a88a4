"""Reading inputs of pw.x: every form is kept, everything else is refused in one sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.engines.espresso.pw_input import BOHR, PwInput, find_pseudos, read_pw_input

CONTROL = "calculation = 'scf', prefix = 'a', outdir = './out', pseudo_dir = '/pseudo'"
SYSTEM = "ibrav = 2, celldm(1) = 10.2, nat = 2, ntyp = 1, ecutwfc = 6.0"
SPECIES = "ATOMIC_SPECIES\n Si 28.085 Si.pz-vbc.UPF\n"
POSITIONS = "ATOMIC_POSITIONS alat\n Si 0.0 0.0 0.0\n Si 0.25 0.25 0.25\n"
POINTS = "K_POINTS automatic\n 2 2 2 0 0 0\n"
CELL = "CELL_PARAMETERS bohr\n 5.1 5.1 0.0\n 0.0 5.1 5.1\n 5.1 0.0 5.1\n"


def text(
    control: str = CONTROL,
    system: str = SYSTEM,
    electrons: str = "conv_thr = 1d-8",
    cards: str = SPECIES + POSITIONS + POINTS,
) -> str:
    return f"&CONTROL\n{control}\n/\n&SYSTEM\n{system}\n/\n&ELECTRONS\n{electrons}\n/\n{cards}"


def read(**parts: str) -> PwInput:
    return read_pw_input(text(**parts))


def test_plain_input() -> None:
    found = read()
    assert found.parameters == {
        "CONTROL": {"calculation": "scf"},
        "SYSTEM": {"ibrav": 0, "ecutwfc": 6.0},
        "ELECTRONS": {"conv_thr": 1e-8},
    }
    alat = 10.2 * BOHR
    assert found.atoms.get_chemical_symbols() == ["Si", "Si"] and found.atoms.pbc.all()
    np.testing.assert_allclose(found.atoms.positions[1], [alat / 4] * 3)
    np.testing.assert_allclose(found.atoms.cell[0], [-alat / 2, 0.0, alat / 2])
    assert found.kpoints.mesh == (2, 2, 2) and found.kpoints.offset == (0.0, 0.0, 0.0)
    assert found.pseudo_dir == "/pseudo" and found.settings == {}


# What pw.x 6.7 prints as its crystal axes, in units of alat.
AXES = [
    (1, "", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    (2, "", [[-0.5, 0.0, 0.5], [0.0, 0.5, 0.5], [-0.5, 0.5, 0.0]]),
    (3, "", [[0.5, 0.5, 0.5], [-0.5, 0.5, 0.5], [-0.5, -0.5, 0.5]]),
    (-3, "", [[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]]),
    (4, "celldm(3)=1.6", [[1.0, 0.0, 0.0], [-0.5, 0.866025, 0.0], [0.0, 0.0, 1.6]]),
    (
        5,
        "celldm(4)=0.3",
        [
            [0.591608, -0.341565, 0.730297],
            [0.0, 0.68313, 0.730297],
            [-0.591608, -0.341565, 0.730297],
        ],
    ),
    (
        -5,
        "celldm(4)=0.3",
        [
            [-0.136136, 0.700524, 0.700524],
            [0.700524, -0.136136, 0.700524],
            [0.700524, 0.700524, -0.136136],
        ],
    ),
    (6, "celldm(3)=1.6", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.6]]),
    (7, "celldm(3)=1.6", [[0.5, -0.5, 0.8], [0.5, 0.5, 0.8], [-0.5, -0.5, 0.8]]),
    (8, "celldm(2)=1.2,celldm(3)=1.6", [[1.0, 0.0, 0.0], [0.0, 1.2, 0.0], [0.0, 0.0, 1.6]]),
    (9, "celldm(2)=1.2,celldm(3)=1.6", [[0.5, 0.6, 0.0], [-0.5, 0.6, 0.0], [0.0, 0.0, 1.6]]),
    (-9, "celldm(2)=1.2,celldm(3)=1.6", [[0.5, -0.6, 0.0], [0.5, 0.6, 0.0], [0.0, 0.0, 1.6]]),
    (91, "celldm(2)=1.2,celldm(3)=1.6", [[1.0, 0.0, 0.0], [0.0, 0.6, -0.8], [0.0, 0.6, 0.8]]),
    (10, "celldm(2)=1.2,celldm(3)=1.6", [[0.5, 0.0, 0.8], [0.5, 0.6, 0.0], [0.0, 0.6, 0.8]]),
    (11, "celldm(2)=1.2,celldm(3)=1.6", [[0.5, 0.6, 0.8], [-0.5, 0.6, 0.8], [-0.5, -0.6, 0.8]]),
    (
        12,
        "celldm(2)=1.2,celldm(3)=1.6,celldm(4)=0.3",
        [[1.0, 0.0, 0.0], [0.36, 1.144727, 0.0], [0.0, 0.0, 1.6]],
    ),
    (
        -12,
        "celldm(2)=1.2,celldm(3)=1.6,celldm(5)=0.3",
        [[1.0, 0.0, 0.0], [0.0, 1.2, 0.0], [0.48, 0.0, 1.526303]],
    ),
    (
        13,
        "celldm(2)=1.2,celldm(3)=1.6,celldm(4)=0.3",
        [[0.5, 0.0, -0.8], [0.36, 1.144727, 0.0], [0.5, 0.0, 0.8]],
    ),
    (
        -13,
        "celldm(2)=1.2,celldm(3)=1.6,celldm(5)=0.3",
        [[0.5, 0.6, 0.0], [-0.5, 0.6, 0.0], [0.48, 0.0, 1.526303]],
    ),
    (
        14,
        "celldm(2)=1.2,celldm(3)=1.6,celldm(4)=0.1,celldm(5)=0.2,celldm(6)=0.3",
        [[1.0, 0.0, 0.0], [0.36, 1.144727, 0.0], [0.32, 0.06709, 1.566237]],
    ),
]


@pytest.mark.parametrize(("ibrav", "more", "axes"), AXES)
def test_axes_of_every_ibrav_are_those_of_pw(ibrav: int, more: str, axes: Any) -> None:
    found = read(system=f"ibrav={ibrav}, celldm(1)=8.0, {more} nat=2, ntyp=1, ecutwfc=6")
    np.testing.assert_allclose(found.atoms.cell.array, np.array(axes) * 8 * BOHR, atol=5e-6)


@pytest.mark.parametrize(
    ("celldm", "abc"),
    [
        ("14, celldm = 8.0, 1.2, 1.6, .1, .2, .3",
         "14, A=4.23341768722, B=5.08010122467, C=6.77346829956, cosBC=.1, cosAC=.2, cosAB=.3"),
        ("-12, celldm(1)=8, celldm(2)=1.2, celldm(3)=1.6, celldm(5)=.2",
         "-12, A=4.23341768722, B=5.08010122467, C=6.77346829956, cosAC=.2"),
        ("5, celldm = 8.0, 0, 0, 0.3", "5, a = 4.23341768722, cosab = 0.3"),
    ],
)  # fmt: skip
def test_lattice_in_bohr_or_angstrom(celldm: str, abc: str) -> None:
    tail = ", nat=2, ntyp=1, ecutwfc=6"
    first, second = (read(system=f"ibrav={form}{tail}") for form in (celldm, abc))
    np.testing.assert_allclose(first.atoms.cell.array, second.atoms.cell.array, atol=1e-9)
    np.testing.assert_allclose(first.atoms.positions, second.atoms.positions, atol=1e-9)


@pytest.mark.parametrize(
    ("lattice", "card"),
    [
        ("", CELL),
        ("", CELL.replace(" bohr", "")),
        ("celldm(1) = 10.2,", "CELL_PARAMETERS\n .5 .5 0\n 0 .5 .5\n .5 0 .5\n"),
        ("celldm(1) = 10.2,", "CELL_PARAMETERS { alat }\n .5 .5 0\n 0 .5 .5\n .5 0 .5\n"),
        ("A = 5.3976072472106,", "CELL_PARAMETERS (alat)\n .5 .5 0\n 0 .5 .5\n .5 0 .5\n"),
        ("", "CELL_PARAMETERS angstrom\n" + "".join(
            " ".join(str(5.1 * BOHR * int(x)) for x in row) + "\n" for row in ("110", "011", "101")
        )),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("unit", "place"),
    [("crystal", 0.25), ("bohr", 2.55), ("angstrom", 2.55 * BOHR)],
)
def test_cell_and_positions_in_all_units(lattice: str, card: str, unit: str, place: float) -> None:
    positions = f"ATOMIC_POSITIONS {unit}\nSi 0 0 0\nSi {place} {place} {place}\n"
    found = read(
        system=f"ibrav=0, {lattice} nat=2, ntyp=1, ecutwfc=6",
        cards=SPECIES + positions + POINTS + card,
    )
    np.testing.assert_allclose(found.atoms.cell.array, np.array(
        [[1, 1, 0], [0, 1, 1], [1, 0, 1]]) * 5.1 * BOHR, atol=1e-9)  # fmt: skip
    np.testing.assert_allclose(found.atoms.positions[1], [2.55 * BOHR] * 3, atol=1e-9)


def test_positions_in_alat_of_a_cell_without_lattice_parameter() -> None:
    found = read(
        system="ibrav=0, nat=2, ntyp=1, ecutwfc=6", cards=SPECIES + POSITIONS + POINTS + CELL
    )
    np.testing.assert_allclose(found.atoms.positions[1], [5.1 * 2**0.5 / 4 * BOHR] * 3)


def test_kpoints_in_all_forms() -> None:
    def points(card: str) -> PwInput:
        return read(cards=SPECIES + POSITIONS + card)

    gamma = points("K_POINTS {gamma}\n")
    assert gamma.gamma_only and gamma.settings == {"gamma_only": True}
    assert gamma.kpoints.mesh == (1, 1, 1)
    shifted = points("K_POINTS (automatic)\n 4, 4, 1, 1, 0, 1\n")
    assert shifted.kpoints.offset == (0.5, 0.0, 0.5) and not shifted.gamma_only
    crystal = points("K_POINTS crystal\n 2\n .1 .25 .05 1.0\n 0 0 0.5 3\n").kpoints
    cartesian = points("K_POINTS\n 2\n .1 .2 .3 1.0\n -.5 .5 -.5 3\n").kpoints
    assert crystal.points is not None and cartesian.points is not None
    np.testing.assert_allclose(cartesian.points[0], crystal.points[0], atol=1e-12)
    assert crystal.weights is not None and list(crystal.weights) == [1.0, 3.0]


def test_several_kinds_of_one_element() -> None:
    found = read(
        system="ibrav=1, celldm(1)=5, nat=2, ntyp=2, ecutwfc=6, nspin=2\n"
        "starting_magnetization(1) = 0.5, starting_magnetization(2) = -.5\n"
        "lda_plus_u = .true., Hubbard_U = 4.0 3.0, Hubbard_J(1,2) = 0.5\n"
        "starting_ns_eigenvalue(3,1,2) = 1.0, fixed_magnetization(3) = 0.1",
        cards="ATOMIC_SPECIES\n Fe2 55.0 Fe.UPF\n Fe1 0.0 Fe.UPF\n"
        "ATOMIC_POSITIONS crystal\n Fe1 0 0 0\n Fe2 1/2 (1+1)/4 2^-1\nK_POINTS gamma\n",
    )
    system = found.parameters["SYSTEM"]
    assert system["starting_magnetization"] == {"Fe2": 0.5, "Fe1": -0.5}
    assert system["hubbard_u"] == {"Fe2": 4.0, "Fe1": 3.0} and system["lda_plus_u"] is True
    assert system["hubbard_j"] == [[1, "Fe1", 0.5]]
    assert system["starting_ns_eigenvalue"] == [[3, 1, "Fe1", 1.0]]
    assert system["fixed_magnetization"] == [[3, 0.1]]
    assert found.kinds == ("Fe1", "Fe2") and found.atoms.get_chemical_symbols() == ["Fe", "Fe"]
    assert [one.mass for one in found.species] == [55.0, None]
    np.testing.assert_allclose(found.atoms.positions[1], [2.5 * BOHR] * 3)


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("Si", "Si"), ("SI", "Si"), ("H_a", "H"), ("C-h", "C"), ("OA", "O"), ("Fe3", "Fe")],
)
def test_names_of_kinds(name: str, symbol: str) -> None:
    found = read(cards=(SPECIES + POSITIONS + POINTS).replace(" Si ", f" {name} "))
    assert found.species[0].symbol == symbol


def test_fixed_atoms_and_external_forces() -> None:
    found = read(
        control="calculation='relax', pseudo_dir='.'",
        electrons="/\n&IONS\n ion_dynamics = 'damp'",
        cards=SPECIES + POSITIONS.replace("0.25\n", "0.25 0 1 0\n") + POINTS
        + "ATOMIC_FORCES\n Si 0 0 0\n Si 0 0 1d-3\n",
    )  # fmt: skip
    assert found.settings["fixed_coords"] == [[False] * 3, [True, False, True]]
    assert found.settings["atomic_forces"] == [[0.0] * 3, [0.0, 0.0, 1e-3]]
    assert found.parameters["IONS"] == {"ion_dynamics": "damp"}


def test_how_fortran_writes_things() -> None:
    found = read_pw_input(
        """! a comment before everything
 &control calculation='scf', title = 'it''s 100% "fine" ! /', tprnfor=T tstress = .false. /
&SYSTEM  ! comment
   ibrav=2; celldm(1)=1.02D+1
   NAT=2 ntyp=1,ecutwfc= 6.
   ! nbnd = 3
   nbnd = 7 nbnd = 8, starting_charge = 1*0.5
&end
&ELECTRONS
/
# full line
K_POINTS gamma
ATOMIC_SPECIES
  Si 28.085 Si.UPF ! comment

ATOMIC_POSITIONS {alat}
  Si 0 0 0
! Si 1 1 1
  Si .25 .25 2.5d-1 ! comment
"""
    )
    assert found.parameters["CONTROL"] == {
        "calculation": "scf",
        "title": 'it\'s 100% "fine" ! /',
        "tprnfor": True,
        "tstress": False,
    }
    assert found.parameters["SYSTEM"] == {
        "ibrav": 0, "ecutwfc": 6.0, "nbnd": 8, "starting_charge": {"Si": 0.5},
    }  # fmt: skip
    assert len(found.atoms) == 2


def test_what_pw_does_not_read_or_is_elsewhere_is_left_out() -> None:
    found = read(
        control=CONTROL + ", disk_io = 'none', wfcdir = '/tmp', max_seconds = 3.0",
        electrons="/\n&IONS\n ion_dynamics = 'bfgs'\n/\n&CELL\n cell_dynamics = 'bfgs'",
    )
    assert found.parameters["CONTROL"] == {"calculation": "scf", "max_seconds": 3.0}
    assert set(found.parameters) == {"CONTROL", "SYSTEM", "ELECTRONS"}


def cards(old: str, new: str) -> dict[str, str]:
    assert old in SPECIES + POSITIONS + POINTS
    return {"cards": (SPECIES + POSITIONS + POINTS).replace(old, new)}


NO_CELL = "ibrav=0, nat=2, ntyp=1, ecutwfc=6"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"system": SYSTEM + ", ecutwf = 3"}, "no 'ecutwf' in the namelist &SYSTEM; did you mean"),
        ({"system": SYSTEM + ", conv_thr = 3"}, "belongs into &ELECTRONS"),
        ({"system": SYSTEM + ", nbnd = three"}, "nbnd in &SYSTEM is three; that is no finite"),
        ({"system": SYSTEM + ", degauss = NaN"}, "degauss in &SYSTEM is NaN"),
        ({"system": SYSTEM + ", nbnd ="}, "nbnd in &SYSTEM has no value"),
        ({"system": SYSTEM + "\nnbnd 4"}, "line 6: 'nbnd 4' in the namelist &SYSTEM is not of"),
        ({"system": SYSTEM.replace(", nat = 2", "")}, "nat is missing in the namelist &SYSTEM"),
        ({"system": SYSTEM.replace("nat = 2", "nat = 3")}, "nat is 3 in &SYSTEM, but there are 2"),
        ({"system": SYSTEM.replace("ntyp = 1", "ntyp = 2")}, "ntyp is 2 in &SYSTEM, but there are"),
        ({"system": SYSTEM.replace("ibrav = 2", "ibrav = 77")}, "ibrav = 77 is not one of pw.x's"),
        ({"system": SYSTEM.replace("ibrav = 2", "ibrav = 8")}, "ibrav = 8 needs celldm(2)"),
        ({"system": SYSTEM.replace("ibrav = 2", "ibrav = 2.5")}, "ibrav is 2.5, not a whole"),
        ({"system": SYSTEM.replace("10.2", "'ten'")}, "celldm(1) is 'ten', not a number"),
        ({"system": SYSTEM.replace("celldm(1) = 10.2,", "")}, "ibrav = 2 needs celldm(1) or A"),
        ({"system": SYSTEM + ", A = 5"}, "celldm and A both define the cell"),
        ({"system": NO_CELL}, "ibrav = 0 needs the card CELL_PARAMETERS"),
        ({"system": NO_CELL, "cards": SPECIES + POSITIONS + POINTS + CELL.replace("0.0", "nan")},
         "CELL_PARAMETERS needs three lines of three finite numbers"),
        ({"system": NO_CELL, "cards": SPECIES + POSITIONS + POINTS + CELL.replace("5.1", "0")},
         "has no volume"),
        ({"system": NO_CELL, "cards": SPECIES + POSITIONS + POINTS + CELL.replace("bohr", "alat")},
         "CELL_PARAMETERS alat needs celldm(1) or A"),
        ({"system": NO_CELL + ", A = 5", "cards": SPECIES + POSITIONS + POINTS + CELL},
         "both set the lattice parameter"),
        ({"cards": SPECIES + POSITIONS + POINTS + CELL}, "and CELL_PARAMETERS both define"),
        ({"system": SYSTEM + ", starting_magnetization(2) = 1"}, "is for species 2, but there are"),
        ({"system": SYSTEM + ", space_group = 225"}, "space_group in &SYSTEM cannot be kept"),
        ({"control": CONTROL.replace("scf", "vc-relax")}, "calculation = 'vc-relax' cannot be"),
        ({"control": CONTROL + ", restart_mode = 'restart'"}, "needs files of an earlier run"),
        ({"electrons": "startingpot = 'file'"}, "startingpot = 'file' needs files of an earlier"),
        ({"electrons": "/\n&FCP\n fcp_mu = 1.0"}, "the namelist &FCP cannot be kept"),
        ({"electrons": "/\n&SISTEM\n x = 1"}, "no namelist &SISTEM; did you mean 'SYSTEM'?"),
        ({"electrons": "/\n&SYSTEM\n nbnd = 1"}, "the namelist &SYSTEM is there twice"),
        (cards(SPECIES, ""), "the card ATOMIC_SPECIES is missing"),
        (cards(POSITIONS, ""), "the card ATOMIC_POSITIONS is missing"),
        (cards(POINTS, ""), "the card K_POINTS is missing"),
        (cards("ATOMIC_POSITIONS", "ATOMIC_POSITION"), "did you mean 'ATOMIC_POSITIONS'?"),
        (cards(POINTS, POINTS + POINTS), "the card K_POINTS is there twice"),
        (cards(POINTS, POINTS + "&IONS\n/\n"), "&IONS must stand before the cards"),
        (cards(POINTS, POINTS + "HUBBARD atomic\nU Si-3p 2\n"), "the card HUBBARD cannot be kept"),
        (cards(POINTS, POINTS + "OCCUPATIONS\n2 2 2 2\n"), "the card OCCUPATIONS cannot be kept"),
        (cards(" Si 28.085", " Sj 28.085"), "unknown element 'Sj'"),
        (cards(" Si 28.085", " Si Si 28"), "is not of the form name mass pseudopotential"),
        (cards(" Si 28.085", " Al 28.085"), "Si of ATOMIC_POSITIONS is not in ATOMIC_SPECIES"),
        (cards(" Si 0.25 0.25 0.25", " Si 0.25 0.25"), "in ATOMIC_POSITIONS is not of the form"),
        (cards("0.25 0.25 0.25", "0.25 nan 0.25"), "the coordinate nan is no finite number"),
        (cards("0.25 0.25 0.25", "0.25 1/0 0.25"), "the coordinate 1/0 is no finite number"),
        (cards("0.25 0.25 0.25", "9**9**9**9 0 0"), "the coordinate 9**9**9**9 is no finite"),
        (cards("0.25 0.25 0.25", "0 0 0 2 0 0"), "are not three of 0 and 1"),
        (cards("alat", "crystal_sg"), "ATOMIC_POSITIONS crystal_sg cannot be kept"),
        (cards("2 2 2 0 0 0", "2 2 2"), "K_POINTS automatic needs one line such as"),
        (cards("2 2 2 0 0 0", "0 2 2 0 0 0"), "K_POINTS automatic needs one line such as"),
        (cards("automatic", "tpiba_b"), "K_POINTS tpiba_b cannot be kept"),
        (cards("automatic\n 2 2 2 0 0 0", "crystal\n 2\n 0 0 0 1"), "needs the number of points"),
        (cards("automatic", "gamma"), "K_POINTS gamma takes no lines, but '2 2 2 0 0 0'"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_sentence(parts: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(**parts)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        ("", "the input is empty"),
        ("! only a comment\n", "the input is empty"),
        ("12 atoms\n", "line 1: '12 atoms' stands where &CONTROL should begin"),
        (text().replace("&ELECTRONS\nconv_thr = 1d-8\n/\n", ""), "&ELECTRONS is missing"),
        (text().replace("1d-8\n/", "1d-8"), "&ELECTRONS does not end with '/' before line 9"),
        (text(electrons="").replace("ELECTRONS\n\n/", "ELECTRONS\n"),
         "the namelist &ELECTRONS does not end with '/'"),
        ("&CONTROL\n calculation = 'scf'", "the namelist &CONTROL does not end with '/'"),
    ],
)  # fmt: skip
def test_text_that_is_no_input(whole: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_pw_input(whole)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_pseudopotentials_are_found(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "Si.pz-vbc.UPF").write_text("")
    there = {"Si": tmp_path / "sub" / "Si.pz-vbc.UPF"}
    relative = read(control="pseudo_dir = './sub/'")
    assert find_pseudos(relative, tmp_path, {}) == there
    elsewhere = {"ESPRESSO_PSEUDO": str(tmp_path / "sub")}
    assert find_pseudos(read(control=""), Path(), elsewhere) == there
    assert find_pseudos(read(), Path(), elsewhere) == there
    with pytest.raises(InputError, match=r"Si.pz-vbc.UPF of Si is not in /pseudo; correct"):
        find_pseudos(read(), tmp_path, {})
