"""The report model: what it accepts, refuses and collects."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from aiida_autopipe.report.model import (
    EnergyVolumeCurve,
    NodeRef,
    ParitySplit,
    Report,
    Trace,
)


def test_unknown_field_is_refused(report_factory):
    with pytest.raises(ValidationError, match="colour"):
        report_factory(colour="red")


def test_arrays_of_any_shape_become_flat_lists():
    forces = np.arange(6.0).reshape(2, 3)
    split = ParitySplit(forces_reference=forces, forces_potential=forces.astype(np.float32))
    assert split.forces_reference == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert split.forces_potential == split.forces_reference


def test_none_in_an_array_is_not_a_number():
    curve = EnergyVolumeCurve(volume_per_atom=[1.0, 2.0], energy_per_atom=[None, 3.0])
    assert math.isnan(curve.energy_per_atom[0])


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (Trace, {"step": [1, 2], "time_ps": [0.1], "gamma_max": [1, 2], "temperature_K": [1, 2]}),
        (ParitySplit, {"energy_reference": [1.0], "energy_potential": []}),
        (EnergyVolumeCurve, {"volume_per_atom": [1.0], "energy_per_atom": [1.0, 2.0]}),
    ],
)
def test_arrays_that_differ_in_length_are_refused(model, values):
    with pytest.raises(ValidationError, match="differ in length"):
        model(**values)


@pytest.mark.parametrize("uuid", ["1", "'; rm -rf ~ #", "6F9619FF-8B86-D011-B42D-00C04FC964FF"])
def test_a_uuid_that_is_unsafe_to_copy_into_a_shell_is_refused(uuid):
    with pytest.raises(ValidationError):
        NodeRef(uuid=uuid, pk=1, kind="Dict")


@pytest.mark.parametrize("path", ["/etc/passwd", "../other", "a/../../b", "", "..\\x"])
def test_a_path_outside_the_folder_is_refused(report_factory, path):
    with pytest.raises(ValidationError, match="relative path"):
        report_factory(files={"yace": path})


def test_nodes_are_collected_once_by_pk(report):
    nodes = report.nodes()
    assert [n.pk for n in nodes] == sorted({n.pk for n in nodes})
    expected = {
        report.process,
        report.config_node,
        report.labels.labelled_node,
        report.labels.reasons[0].example,
        report.final.potential,
        report.final.simulations[2].node,
        report.parity.test.dataset,
        report.validation[5].reference_node,
        report.eos_potential.node,
        report.reference_energies[0].node,
    }
    assert expected <= set(nodes)


def test_json_round_trip_keeps_nan_and_infinity(report_factory):
    report = report_factory(
        wall_seconds=float("inf"),
        eos_potential=EnergyVolumeCurve(volume_per_atom=[1.0], energy_per_atom=[float("nan")]),
    )
    again = Report.model_validate_json(report.model_dump_json())
    assert again.wall_seconds == float("inf")
    assert math.isnan(again.eos_potential.energy_per_atom[0])
    assert again.generations == report.generations
