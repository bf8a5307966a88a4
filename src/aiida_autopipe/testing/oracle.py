"""What every oracle must do: the contract that `autopipe.label` relies on, as tests.

An oracle is a CalcJob that labels all structures of a data set in one job. Inputs: `dataset`,
`settings`, `code`, `metadata.options`, and what else it needs. Outputs: `labelled`, a DatasetData
with energies (eV, the ones that the forces are the derivative of), forces (eV/Å), stresses of 3D
periodic structures where there are any (eV/Å^3, ASE sign and Voigt order), the column `position`
(index in the input) and the attribute `method` with a `fingerprint`; and `outcomes`, one entry for
each structure. A structure that cannot be labelled fails alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from aiida.common.exceptions import ValidationError
from aiida.engine import run_get_node
from aiida.orm import AbstractCode, Dict
from aiida.plugins import CalculationFactory
from ase import Atoms

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.testing.batches import Batch

OUTCOME_KEYS = {"position", "outcome", "reason", "exit_status", "seconds"}


@dataclass(frozen=True)
class Labelled:
    """What one job gave, without nodes."""

    exit_status: int | None
    exit_message: str | None
    source: Dataset
    labels: Dataset | None
    fingerprint: str | None
    outcomes: list[dict[str, Any]]

    def row(self, position: int) -> int:
        """Index among the labels of the structure at a position of the input."""
        assert self.labels is not None, f"nothing was labelled: {self.outcomes}"
        rows = np.flatnonzero(self.labels.columns["position"] == position)
        assert len(rows) == 1, f"{len(rows)} labels of position {position}: {self.outcomes}"
        return int(rows[0])

    def energy(self, position: int) -> float:
        """Energy of the structure at a position of the input, eV."""
        assert self.labels is not None and self.labels.energy is not None
        return float(self.labels.energy[self.row(position)])


class OracleContract:
    """Subclass it as `Test...`, fill in the attributes, and give the fixture `oracle_inputs`.

    Three jobs are run: the batch, the batch again, and one good structure with other settings
    beside one senseless structure; the tests look at them. Set the attributes so that it stays
    fast: the batch has the good structures, one senseless, one to relax, the isolated atom, and
    two for each derivative.
    """

    entry_point: ClassVar[str]
    """Of the CalcJob, in the group `aiida.calculations`."""
    settings: ClassVar[Mapping[str, Any]]
    """A method that can label the structures."""
    other_settings: ClassVar[Mapping[str, Any]]
    """Another method, whose energies are not comparable."""
    bad_settings: ClassVar[Sequence[Mapping[str, Any]]]
    """Settings that must be refused before submission."""
    good: ClassVar[Sequence[Atoms]]
    """Structures with forces; derivatives are taken of the first."""
    to_relax: ClassVar[Atoms | None] = None
    """A structure with forces, which is relaxed before it is labelled."""
    relaxed_force: ClassVar[float] = 0.01
    """Largest force component after relaxation, eV/Å."""
    isolated: ClassVar[Atoms | None] = None
    """One atom without periodic directions."""
    columns: ClassVar[Mapping[str, Any]] = {}
    """Columns of the data set, the same for all structures, such as a k-point mesh."""
    force_components: ClassVar[int] = 3
    """How many components of forces are compared with differences of energies."""
    stress_components: ClassVar[Sequence[int]] = (0, 5)
    """Voigt indices of the stresses that are compared; empty where the oracle has none."""
    step: ClassVar[float] = 0.005
    """Displacement, Å; strains are a tenth of it."""
    force_tolerance: ClassVar[float] = 2e-3
    """eV/Å."""
    stress_tolerance: ClassVar[float] = 2e-4
    """eV/Å^3."""
    repeat_tolerance: ClassVar[float] = 1e-6
    """How much the same label may differ in a second job, eV and eV/Å."""

    _runs: ClassVar[dict[type, dict[str, Labelled]]] = {}

    @pytest.fixture
    def oracle_inputs(self) -> dict[str, Any]:
        """Inputs beside `dataset` and `settings`: at least `code`, perhaps `metadata`."""
        raise NotImplementedError("give the fixture oracle_inputs")

    @pytest.fixture
    def batch(self) -> Batch:
        """The structures of the jobs, by role."""
        return self.make_batch()

    def make_batch(self) -> Batch:
        """The good structures, one senseless, and what the attributes ask for beside them."""
        batch = Batch()
        first = batch.add("good", self.good[0])
        batch.add("senseless", self.senseless())
        for atoms in self.good[1:]:
            batch.add("good", atoms)
        if self.to_relax is not None:
            batch.add("relaxed", self.to_relax, relax=True)
        if self.isolated is not None:
            batch.add("isolated", self.isolated)
        batch.differentiate(first, self.force_components, self.stress_components, self.step)
        return batch

    @pytest.fixture
    def first(self, batch: Batch, oracle_inputs: dict[str, Any]) -> Labelled:
        """The job on the batch."""
        return self._cached("first", batch.dataset(self.columns), self.settings, oracle_inputs)

    @pytest.fixture
    def second(self, batch: Batch, oracle_inputs: dict[str, Any]) -> Labelled:
        """The same job again."""
        return self._cached("second", batch.dataset(self.columns), self.settings, oracle_inputs)

    @pytest.fixture
    def other(self, oracle_inputs: dict[str, Any]) -> Labelled:
        """One good structure with other settings."""
        few = Batch()
        few.add("good", self.good[0])
        return self._cached("other", few.dataset(self.columns), self.other_settings, oracle_inputs)

    @pytest.fixture
    def hopeless(self, oracle_inputs: dict[str, Any]) -> Labelled:
        """A senseless structure alone."""
        few = Batch()
        few.add("senseless", self.senseless())
        return self._cached("hopeless", few.dataset(self.columns), self.settings, oracle_inputs)

    def senseless(self) -> Atoms:
        """A structure that must be rejected: two atoms at nearly the same place."""
        atoms: Atoms = self.good[0].copy()
        assert len(atoms) > 1, "the first good structure needs two atoms at least"
        atoms.positions[1] = atoms.positions[0] + [0.01, 0.0, 0.0]
        return atoms

    def _cached(
        self, name: str, source: Dataset, settings: Mapping[str, Any], inputs: Any
    ) -> Labelled:
        """A job is run once for each subclass."""
        cache = self._runs.setdefault(type(self), {})
        if name not in cache:
            cache[name] = self.run(source, settings, inputs)
        return cache[name]

    def run(self, source: Dataset, settings: Mapping[str, Any], inputs: Any) -> Labelled:
        """Label a data set with the oracle."""
        outputs, node = run_get_node(
            CalculationFactory(self.entry_point),
            dataset=DatasetData(source),
            settings=Dict(dict(settings)),
            **inputs,
        )
        assert "outcomes" in outputs, f"no outcomes: [{node.exit_status}] {node.exit_message}"
        found = outputs.get("labelled")
        return Labelled(
            exit_status=node.exit_status,
            exit_message=node.exit_message,
            source=source,
            labels=None if found is None else found.get_dataset(),
            fingerprint=None if found is None else found.method_fingerprint,
            outcomes=outputs["outcomes"]["outcomes"],
        )

    # ------------------------------------------------------------------ ports

    def test_has_the_ports_of_an_oracle(self) -> None:
        """Inputs and outputs that `autopipe.label` uses, with their types."""
        spec = CalculationFactory(self.entry_point).spec()
        for name, kind in (("dataset", DatasetData), ("settings", Dict), ("code", AbstractCode)):
            assert name in spec.inputs, f"no input '{name}'"
            assert issubclass(kind, spec.inputs[name].valid_type), name
        assert issubclass(DatasetData, spec.outputs["labelled"].valid_type)
        assert not spec.outputs["labelled"].required, "there may be nothing to give"
        assert issubclass(Dict, spec.outputs["outcomes"].valid_type)

    def test_refuses_bad_settings(self, oracle_inputs: dict[str, Any]) -> None:
        """Before submission, so that nothing is queued that cannot work."""
        few = Batch()
        few.add("good", self.good[0])
        for settings in self.bad_settings:
            with pytest.raises((ValueError, ValidationError)):
                self.run(few.dataset(self.columns), settings, oracle_inputs)

    def test_refuses_an_empty_dataset(self, batch: Batch, oracle_inputs: dict[str, Any]) -> None:
        """There is nothing to label."""
        with pytest.raises((ValueError, ValidationError)):
            self.run(batch.dataset(self.columns)[:0], self.settings, oracle_inputs)

    # ------------------------------------------------------------------ outcomes

    def test_the_job_ends_well(self, first: Labelled) -> None:
        """One structure that fails is no failure of the job."""
        assert first.exit_status == 0, first.exit_message

    def test_every_structure_has_one_outcome(self, first: Labelled) -> None:
        """In order, with a reason where there is no label."""
        assert [o["position"] for o in first.outcomes] == list(range(len(first.source)))
        for outcome in first.outcomes:
            assert set(outcome) == OUTCOME_KEYS
            assert outcome["outcome"] in ("ok", "failed", "not_run")
            if outcome["outcome"] != "ok":
                assert str(outcome["reason"] or "").strip(), f"no reason: {outcome}"

    def test_only_the_senseless_structure_fails(self, first: Labelled, batch: Batch) -> None:
        """The others are labelled, and what is ok has a label."""
        failed = [o["position"] for o in first.outcomes if o["outcome"] != "ok"]
        assert failed == batch.positions("senseless"), first.outcomes
        assert first.labels is not None
        ok = [o["position"] for o in first.outcomes if o["outcome"] == "ok"]
        assert sorted(first.labels.columns["position"].tolist()) == ok

    def test_nothing_labelled_is_no_output(self, hopeless: Labelled) -> None:
        """An empty data set would be none."""
        assert hopeless.exit_status == 0, hopeless.exit_message
        assert hopeless.labels is None
        assert [o["outcome"] for o in hopeless.outcomes] == ["failed"]

    # ------------------------------------------------------------------ labels

    def test_labels_belong_to_their_structures(self, first: Labelled, batch: Batch) -> None:
        """The column `position` says which; structures and their columns are kept."""
        assert first.labels is not None
        moved = batch.positions("relaxed") + batch.positions("isolated")
        for position in first.labels.columns["position"].tolist():
            row = first.row(position)
            given, got = first.source.atoms(position), first.labels.atoms(row)
            assert got.info["name"] == given.info["name"]
            assert got.numbers.tolist() == given.numbers.tolist()
            if position not in moved:
                np.testing.assert_allclose(got.cell.array, given.cell.array, atol=1e-6)
                np.testing.assert_allclose(got.positions, given.positions, atol=1e-6)

    def test_labels_are_finite_and_complete(self, first: Labelled) -> None:
        """Energy and forces of all, the stress of periodic structures where it is promised."""
        assert first.labels is not None and first.labels.labelled
        first.labels.validate()
        for row in range(len(first.labels)):
            labels = first.labels.labels(row)
            if self.stress_components and np.all(first.labels.pbc[row]):
                assert labels.stress is not None, f"no stress: {first.labels.atoms(row)}"
            if not np.all(first.labels.pbc[row]):
                assert labels.stress is None, "the stress of a cell that is not periodic"

    def test_forces_are_minus_the_gradient(self, first: Labelled, batch: Batch) -> None:
        """Of the energy that is given, by central differences."""
        assert first.labels is not None
        for d in batch.forces:
            atom, axis = d.component
            expected = -(first.energy(d.plus) - first.energy(d.minus)) / (2 * d.step)
            forces = first.labels.labels(first.row(d.base)).forces
            assert forces is not None
            assert abs(forces[atom, axis] - expected) < self.force_tolerance, (
                f"force {forces[atom, axis]:.6f} eV/Å on atom {atom}, axis {axis}; differences of "
                f"the energy give {expected:.6f}"
            )

    def test_stress_is_the_derivative_by_strain(self, first: Labelled, batch: Batch) -> None:
        """Per volume: positive under tension (ASE's sign), in the order xx yy zz yz xz xy."""
        assert first.labels is not None
        for d in batch.stresses:
            row = first.row(d.base)
            slope = (first.energy(d.plus) - first.energy(d.minus)) / (2 * d.step)
            expected = slope / first.labels.atoms(row).get_volume()
            stress = first.labels.labels(row).stress
            assert stress is not None
            assert abs(stress[d.component[0]] - expected) < self.stress_tolerance, (
                f"stress {stress[d.component[0]]:.6f} eV/Å^3, component {d.component[0]}; "
                f"differences of the energy give {expected:.6f}"
            )

    def test_relaxed_structures_have_small_forces(self, first: Labelled, batch: Batch) -> None:
        """And the label is that of the relaxed positions."""
        assert first.labels is not None
        for position in batch.positions("relaxed"):
            row = first.row(position)
            forces = first.labels.labels(row).forces
            assert forces is not None
            assert np.abs(forces).max() <= 1.01 * self.relaxed_force
            moved = first.labels.atoms(row).positions - first.source.atoms(position).positions
            assert np.abs(moved).max() > 1e-3, "the positions are those before the relaxation"

    def test_a_second_job_gives_the_same_labels(self, first: Labelled, second: Labelled) -> None:
        """What one structure gets does not depend on what ran before it."""
        assert first.labels is not None and second.labels is not None
        assert first.fingerprint == second.fingerprint
        for position in first.labels.columns["position"].tolist():
            one = first.labels.labels(first.row(position))
            two = second.labels.labels(second.row(position))
            assert one.energy == pytest.approx(two.energy, abs=self.repeat_tolerance)
            assert one.forces is not None and two.forces is not None
            np.testing.assert_allclose(one.forces, two.forces, atol=self.repeat_tolerance)

    def test_the_method_tells_settings_apart(self, first: Labelled, other: Labelled) -> None:
        """Labels of different settings have different fingerprints and cannot be merged."""
        assert other.exit_status == 0, other.exit_message
        assert first.labels is not None and other.labels is not None
        for run in (first, other):
            assert run.labels is not None and run.fingerprint
            assert {"program", "settings", "fingerprint"} <= set(run.labels.attributes["method"])
        assert first.fingerprint != other.fingerprint
        with pytest.raises(InputError, match="different methods"):
            Dataset.concatenate([first.labels, other.labels])
