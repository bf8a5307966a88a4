import mace  # noqa: F401 - before PyTorch, as e3nn needs it
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.explore.batched import BatchRunner
from aiida_autopipe.core.explore.md import Stopped
from aiida_autopipe.core.explore.parts import Parts
from aiida_autopipe.core.explore.run import explore
from aiida_autopipe.core.explore.runner import Runner
from aiida_autopipe.core.explore.settings import ExploreSettings
from aiida_autopipe.core.surrogates.registry import SurrogateSpec, load_surrogate
from tests.core.descriptors.mace_models import save_model


def evaluate_one_by_one(sizes):
    def evaluate(structures):
        sizes.append(len(structures))
        found = []
        for atoms in structures:
            copy = atoms.copy()
            copy.calc = EMT()
            stress = copy.get_stress()
            energy, forces = copy.get_potential_energy(), copy.get_forces()
            found.append({"energy": energy, "forces": forces, "stress": stress})
        return found

    return evaluate


@pytest.fixture
def runner(tmp_path):
    starts = Dataset.from_atoms([bulk("Cu", cubic=True), bulk("Cu") * (1, 1, 2)])
    settings = ExploreSettings(
        temperatures_K=(300, 600), steps=10, every=5, timestep_fs=4.0, seeds=2
    )
    (tmp_path / "parts").mkdir()
    surrogate = load_surrogate(SurrogateSpec("ase.calculators.emt.EMT"))
    return Runner(Parts(tmp_path / "parts"), starts, surrogate, settings, 1)


def test_lanes_share_evaluations_and_make_room_for_the_next(runner):
    sizes, steps, finished = [], [], []
    lanes = BatchRunner(runner, evaluate_one_by_one(sizes), batch_atoms=9)
    lanes.run(list(range(8)), steps.append, lambda: finished.append(1))
    assert len(finished) == 8 and sum(steps) == 80
    assert 2 <= max(sizes) <= 4  # four and two atoms, nine at most
    assert sum(sizes) == 8 * 11  # the start and ten steps of each


def test_being_stopped_leaves_no_threads(runner):
    def stop(n):
        raise Stopped

    lanes = BatchRunner(runner, evaluate_one_by_one([]))
    with pytest.raises(Stopped):
        lanes.run(list(range(8)), stop, lambda: None)


def test_a_failing_batch_fails_its_trajectories(runner):
    def fail(structures):
        raise RuntimeError("out of order")

    finished = []
    BatchRunner(runner, fail).run([0, 1], lambda n: None, lambda: finished.append(1))
    outcomes = runner._parts.outcomes()
    assert [o.ended for o in outcomes.values()] == ["failed", "failed"]
    assert "out of order" in outcomes[0].detail


def test_torch_sim_gives_what_single_trajectories_give(tmp_path):
    """A real MACE model: the same random numbers, forces equal to rounding."""
    model = save_model(tmp_path / "tiny.model")
    spec = SurrogateSpec(str(model), {"dtype": "float64"}, trust=True)
    starts = Dataset.from_atoms([bulk("Si", cubic=True), bulk("Si") * (1, 1, 2)])
    settings = ExploreSettings(
        temperatures_K=(1000,), ensembles=("nvt", "npt"), steps=6, every=3, timestep_fs=1.0
    )
    found = {}
    for engine in ("ase", "torch-sim"):
        path = tmp_path / f"{engine}.h5"
        explore(starts, spec, settings, 1, path, engine=engine)
        found[engine] = Dataset.read_hdf5(path)
    one, batch = found["ase"], found["torch-sim"]
    assert len(one) == len(batch) == 8
    np.testing.assert_allclose(batch.positions, one.positions, atol=1e-9)
    np.testing.assert_allclose(batch.energy, one.energy, atol=1e-9)
    np.testing.assert_allclose(batch.forces, one.forces, atol=1e-9)
    np.testing.assert_allclose(batch.stress, one.stress, atol=1e-9)
    assert np.abs(one.stress).max() > 1e-8
