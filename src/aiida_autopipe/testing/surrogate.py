"""What every surrogate must do: the contract that exploration relies on, as tests."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms

from aiida_autopipe.core.errors import AutopipeError
from aiida_autopipe.core.explore.runner import quietly_in_one_thread
from aiida_autopipe.core.surrogates.registry import Surrogate, SurrogateSpec, load_surrogate


class SurrogateContract:
    """Subclass it as `Test...` and fill in the attributes.

    The structures are small; energies are computed a few dozen times.
    """

    surrogate: ClassVar[str]
    """Its registered name, file or import path."""
    keywords: ClassVar[Mapping[str, Any]] = {}
    """Its keywords."""
    bad_keywords: ClassVar[Sequence[Mapping[str, Any]]] = ()
    """Keywords that must be refused with a sentence."""
    trust: ClassVar[bool] = False
    """Its file needs trust."""
    structures: ClassVar[Sequence[Atoms]]
    """Structures it can compute, with forces; the first is periodic if it has stresses."""
    has_stress: ClassVar[bool] = True
    """It can be used at constant pressure."""
    unknown: ClassVar[str | None] = None
    """An element it does not know."""
    step: ClassVar[float] = 0.005
    """Displacement of the derivatives, Å; strains are a tenth of it."""
    force_tolerance: ClassVar[float] = 5e-3
    """eV/Å."""
    stress_tolerance: ClassVar[float] = 5e-4
    """eV/Å^3."""

    _loaded: ClassVar[dict[type, Surrogate]] = {}

    def spec(self, keywords: Mapping[str, Any] | None = None) -> SurrogateSpec:
        """The specification of the surrogate."""
        chosen = self.keywords if keywords is None else keywords
        return SurrogateSpec(self.surrogate, dict(chosen), trust=self.trust)

    @pytest.fixture
    def loaded(self) -> Surrogate:
        """The surrogate, loaded once for each subclass."""
        if type(self) not in self._loaded:
            self._loaded[type(self)] = load_surrogate(self.spec())
        return self._loaded[type(self)]

    def energy(self, surrogate: Surrogate, atoms: Atoms) -> float:
        """Energy of a copy, eV."""
        copy = atoms.copy()
        copy.calc = surrogate.calculator
        with quietly_in_one_thread():
            return float(copy.get_potential_energy())

    def test_refuses_bad_keywords(self) -> None:
        """With one of our errors, not silently."""
        for keywords in self.bad_keywords:
            with pytest.raises(AutopipeError):
                load_surrogate(self.spec(keywords))

    def test_says_what_it_is(self, loaded: Surrogate) -> None:
        """Its method has a fingerprint, which other keywords would change."""
        assert set(loaded.method) >= {"program", "settings", "fingerprint"}
        symbols = {s for atoms in self.structures for s in atoms.get_chemical_symbols()}
        if loaded.elements is not None:
            assert symbols <= set(loaded.elements)
            assert self.unknown is None or self.unknown not in loaded.elements
        assert inspect.isroutine(type(loaded.calculator).calculate)

    def test_values_are_finite_and_of_the_right_shape(self, loaded: Surrogate) -> None:
        """Energies, forces, and stresses where they are promised."""
        for atoms in self.structures:
            copy = atoms.copy()
            copy.calc = loaded.calculator
            with quietly_in_one_thread():
                assert np.isfinite(copy.get_potential_energy())
                forces = np.asarray(copy.get_forces())
                assert forces.shape == (len(copy), 3) and np.isfinite(forces).all()
                if self.has_stress and copy.pbc.all():
                    stress = np.asarray(copy.get_stress())
                    assert stress.shape == (6,) and np.isfinite(stress).all()

    def test_forces_are_minus_the_gradient(self, loaded: Surrogate) -> None:
        """By central differences, for one atom of the first structure."""
        atoms = self.structures[0].copy()
        atoms.calc = loaded.calculator
        with quietly_in_one_thread():
            forces = np.array(atoms.get_forces())
        for axis in range(3):
            ends = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[0, axis] += sign * self.step
                ends.append(self.energy(loaded, moved))
            expected = -(ends[0] - ends[1]) / (2 * self.step)
            assert abs(forces[0, axis] - expected) < self.force_tolerance

    def test_stress_is_the_derivative_by_strain(self, loaded: Surrogate) -> None:
        """Positive under tension, per volume."""
        if not self.has_stress:
            return
        atoms = self.structures[0].copy()
        atoms.calc = loaded.calculator
        with quietly_in_one_thread():
            stress = np.array(atoms.get_stress())
        strain = self.step / 10
        ends = []
        for sign in (1, -1):
            strained = atoms.copy()
            strained.set_cell(atoms.cell * (1 + sign * strain), scale_atoms=True)
            ends.append(self.energy(loaded, strained))
        expected = (ends[0] - ends[1]) / (2 * strain) / atoms.get_volume() / 3
        assert abs(stress[:3].mean() - expected) < self.stress_tolerance

    def test_depends_on_the_structure_alone(self, loaded: Surrogate) -> None:
        """The same numbers whatever was computed before."""
        first = self.energy(loaded, self.structures[0])
        for atoms in self.structures[1:]:
            self.energy(loaded, atoms)
        loaded.renew()
        assert self.energy(loaded, self.structures[0]) == first
