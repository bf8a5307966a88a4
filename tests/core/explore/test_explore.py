import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError, EngineError, InputError
from aiida_autopipe.core.explore.parts import Parts, parts_folder
from aiida_autopipe.core.explore.run import NoFramesError, explore
from aiida_autopipe.core.explore.settings import ExploreSettings, plan
from aiida_autopipe.core.surrogates.registry import SurrogateSpec

EMT = SurrogateSpec("ase.calculators.emt.EMT")
SHORT = ExploreSettings(
    temperatures_K=(300, 900), ensembles=("nvt", "npt"), steps=20, every=5, timestep_fs=4.0
)


def starts() -> Dataset:
    return Dataset.from_atoms([bulk("Cu", cubic=True), bulk("Cu") * (1, 1, 2)])


def test_frames_their_columns_and_labels(tmp_path):
    path = tmp_path / "frames.h5"
    states = []
    found = explore(starts(), EMT, SHORT, 3, path, progress=lambda s: states.append(vars(s).copy()))
    frames = Dataset.read_hdf5(path)
    assert found.complete and found.frames == len(frames) == 8 * 4
    assert found.rejected == dict.fromkeys(found.rejected, 0)
    assert frames.labelled and frames.stress is not None
    assert frames.method_fingerprint == found.method["fingerprint"]
    assert frames.columns["step"][:4].tolist() == [5, 10, 15, 20]
    assert set(frames.columns["ensemble"]) == {"nvt", "npt"}
    is_npt = frames.columns["ensemble"] == "npt"
    assert np.isnan(frames.columns["pressure_GPa"][~is_npt]).all()
    assert (frames.columns["pressure_GPa"][is_npt] == 0).all()
    assert states[-1] == {
        "steps": 160, "all_steps": 160, "trajectories": 8, "all_trajectories": 8
    }  # fmt: skip
    assert not parts_folder(path).exists()
    # A second call finds the result; another exploration does not overwrite it.
    assert explore(starts(), EMT, SHORT, 3, path).frames == 32
    with pytest.raises(InputError, match=r"another seed \(3 instead of 4\)"):
        explore(starts(), EMT, SHORT, 4, path)


def test_labels_are_those_of_the_frames(tmp_path):
    from ase.calculators import emt

    path = tmp_path / "frames.h5"
    explore(starts(), EMT, SHORT, 3, path)
    for atoms in Dataset.read_hdf5(path)[[0, 17, 31]].iter_atoms():
        energy, forces = atoms.info["energy"], atoms.arrays["forces"].copy()
        atoms.calc = emt.EMT()
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-9)


def test_processes_give_the_same_numbers_also_after_a_kill(tmp_path):
    """kill -9 of everything in the middle, then on with one process: not a bit differs."""
    settings = ExploreSettings(
        temperatures_K=(300,), ensembles=("nvt",), steps=200, every=20, seeds=3, timestep_fs=4.0
    )
    whole, broken = tmp_path / "whole.h5", tmp_path / "broken.h5"
    explore(starts(), EMT, settings, 5, whole)
    program = (
        "import sys; from pathlib import Path\n"
        "from aiida_autopipe.core.dataset import Dataset\n"
        "from aiida_autopipe.core.explore.run import explore\n"
        "from aiida_autopipe.core.explore.settings import ExploreSettings\n"
        "from aiida_autopipe.core.surrogates.registry import SurrogateSpec\n"
        f"s = ExploreSettings.from_dict({settings.to_dict()!r})\n"
        "explore(Dataset.read_hdf5(sys.argv[1]), SurrogateSpec('ase.calculators.emt.EMT'), s, 5, "
        "sys.argv[2], processes=2)\n"
    )
    starts().write_hdf5(tmp_path / "starts.h5")
    command = [sys.executable, "-c", program, str(tmp_path / "starts.h5"), str(broken)]
    process = subprocess.Popen(command)
    folder = parts_folder(broken)
    while not list(folder.glob("0*.json")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while _workers_of(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _workers_of(folder), "processes go on without the one that started them"
    done = Parts(folder).outcomes()
    assert done and not broken.exists()
    seen = []
    explore(starts(), EMT, settings, 5, broken, progress=lambda s: seen.append(s.trajectories))
    assert seen[0] == len(done)
    assert Dataset.read_hdf5(broken).content_hash() == Dataset.read_hdf5(whole).content_hash()


def _workers_of(folder):
    found = []
    for path in os.listdir("/proc"):
        if path.isdigit():
            try:
                with open(f"/proc/{path}/cmdline", "rb") as handle:
                    words = handle.read().split(b"\0")
            except OSError:
                continue
            if str(folder).encode() in words:
                found.append(path)
    return found


def test_parts_of_another_exploration_are_not_mixed_in(tmp_path):
    path = tmp_path / "frames.h5"
    with Parts(parts_folder(path)).locked():
        with pytest.raises(InputError, match="Another process explores"):
            explore(starts(), EMT, SHORT, 3, path)
        Parts(parts_folder(path)).prepare({"seed": 1}, starts())
    with pytest.raises(InputError, match="unfinished exploration with another settings"):
        explore(starts(), EMT, SHORT, 3, path)


def test_time_that_is_over_leaves_what_is_finished(tmp_path):
    found = explore(starts(), EMT, SHORT, 3, tmp_path / "a.h5", max_seconds=1e-6)
    assert not found.complete
    assert (len(found.trajectories), found.all_trajectories, found.frames) == (1, 8, 4)
    long = ExploreSettings(temperatures_K=(300,), steps=100_000, timestep_fs=4.0)
    with pytest.raises(NoFramesError, match="time was over before one of 2"):
        explore(starts(), EMT, long, 3, tmp_path / "b.h5", max_seconds=1e-6)


def run_one(tmp_path, atoms, **changes):
    values = {"temperatures_K": (300,), "steps": 40, "every": 10, "timestep_fs": 2.0} | changes
    settings = ExploreSettings(**values)
    return explore(Dataset.from_atoms([atoms]), EMT, settings, 1, tmp_path / "frames.h5")


def test_each_reason_ends_a_trajectory_and_is_counted(tmp_path):
    overlapping = bulk("Cu", cubic=True)
    overlapping.positions[1] = overlapping.positions[0] + [0.05, 0, 0]
    with pytest.raises(NoFramesError, match=r"Atoms 0 and 1 are 0.05 Å"):
        run_one(tmp_path, overlapping)
    with pytest.raises(NoFramesError, match="above 50 eV/Å"):
        run_one(tmp_path, bulk("Cu", cubic=True), timestep_fs=100.0, temperatures_K=(9000,))
    with pytest.raises(NoFramesError, match="No EMT-potential for Xe"):
        run_one(tmp_path, bulk("Xe"))
    # Pulled apart, an atom leaves; pressed, the volume collapses: both after good frames.
    pair = Atoms("Cu2", [[0, 0, 0], [0, 0, 5.8]])
    found = run_one(tmp_path, pair, temperatures_K=(30000,), steps=2000, max_force=1e3)
    assert found.rejected["lost"] == 1 and found.frames >= 1


def test_a_volume_that_explodes(tmp_path):
    found = run_one(
        tmp_path, bulk("Cu", cubic=True) * (2, 1, 1), ensembles=("npt",), pressures_GPa=(-60.0,),
        steps=4000, temperatures_K=(1000,), barostat_fs=100.0, every=1, max_volume_change=1.2,
    )  # fmt: skip
    assert found.rejected["volume"] == 1
    assert "times that of the start" in found.trajectories[0]["detail"]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_disk_that_is_full(tmp_path, monkeypatch, processes):
    """In a process of its own the error comes back with the name of the file."""
    if processes == 1:
        from aiida_autopipe.core.explore import parts

        def full(*_, **__):
            raise OSError(28, "No space left on device", "frames")

        monkeypatch.setattr(parts.PartWriter, "append", full)
        with pytest.raises(OSError, match="No space left"):
            explore(starts(), EMT, SHORT, 1, tmp_path / "frames.h5")
        return
    blocked = parts_folder(tmp_path / "frames.h5")
    blocked.mkdir()
    (blocked / "000000.json").mkdir()  # where a file should go
    with pytest.raises((OSError, EngineError)):
        explore(starts(), EMT, SHORT, 1, tmp_path / "frames.h5", processes=2)


def test_temperature_and_pressure_are_those_asked_for(tmp_path):
    """Known physics: the mean square displacement grows with T; pressure compresses."""
    settings = ExploreSettings(
        temperatures_K=(100, 800), ensembles=("nvt", "npt"), pressures_GPa=(0.0, 20.0),
        steps=300, every=10, timestep_fs=4.0, thermostat_fs=40.0, barostat_fs=200.0,
    )  # fmt: skip
    crystal = bulk("Cu", a=3.6, cubic=True) * (2, 1, 1)
    path = tmp_path / "frames.h5"
    explore(Dataset.from_atoms([crystal]), EMT, settings, 2, path)
    frames = Dataset.read_hdf5(path)
    late = frames.columns["step"] > 100
    hot = frames.columns["temperature_K"] == 800
    nvt = frames.columns["ensemble"] == "nvt"
    energies = frames.energy / frames.sizes
    rise = energies[late & hot & nvt].mean() - energies[late & ~hot & nvt].mean()
    # Equipartition: 3/2 k T of potential energy for each atom, in a harmonic crystal.
    assert rise == pytest.approx(1.5 * 8.617e-5 * 700, rel=0.4)
    volumes = np.abs(np.linalg.det(frames.cell))
    pressed = frames.columns["pressure_GPa"] == 20
    cold_ratio = (
        volumes[late & pressed & ~hot].mean() / volumes[late & ~nvt & ~pressed & ~hot].mean()
    )
    # The bulk modulus of EMT copper is about 134 GPa and grows under pressure.
    assert 0.85 < cold_ratio < 0.93
    assert np.allclose(volumes[nvt], crystal.get_volume())


def test_random_numbers_depend_on_seed_and_trajectory():
    trajectories = plan(SHORT, 2)
    assert len(trajectories) == 8
    draws = {(s, t.index): t.rng(s).random() for s in (1, 2) for t in trajectories}
    assert len(set(draws.values())) == 16
    assert plan(SHORT, 2)[3].rng(1).random() == draws[1, 3]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, not 0"),
        ({"temperatures_K": [-300]}, "positive number of K, not -300"),
        ({"temperatures_K": []}, "at least one temperature"),
        ({"temperatures_K": 300}, "must be a list"),
        ({"ensembles": ["nvp"]}, "did you mean"),
        ({"every": 2000}, "there would be no frame"),
        ({"timestep_fs": 0.0}, "timestep_fs must be a positive number"),
        ({"max_force": float("nan")}, "max_force must be a positive number"),
        ({"pressures_GPa": ["high"]}, "number of GPa"),
        ({"temprature_K": [1]}, "did you mean 'temperatures_K'"),
    ],
)
def test_bad_settings(values, message):
    with pytest.raises(InputError, match=message):
        ExploreSettings.from_dict(values)


def test_bad_starts(tmp_path):
    molecule = Dataset.from_atoms([Atoms("Cu2", [[0, 0, 0], [0, 0, 2.3]])])
    with pytest.raises(InputError, match="npt needs"):
        explore(molecule, EMT, SHORT, 1, tmp_path / "a.h5")
    with pytest.raises(DataError, match="no structures"):
        explore(molecule[:0], EMT, SHORT, 1, tmp_path / "a.h5")
    with pytest.raises(InputError, match="torch-sim cannot be used"):
        explore(starts(), EMT, SHORT, 1, tmp_path / "a.h5", engine="torch-sim")
