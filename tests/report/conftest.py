"""A realistic sample report: silicon, elastic goal, three generations."""

import uuid
from datetime import UTC, datetime

import numpy as np
import pytest

from aiida_autopipe.report.model import (
    EnergyVolumeCurve,
    ErrorMetrics,
    Generation,
    LabelCounts,
    Method,
    NodeRef,
    OriginCount,
    Parity,
    ParitySplit,
    ReferenceEnergy,
    RejectedReason,
    Report,
    Simulation,
    Trace,
    ValidationRow,
)

CONFIG = """\
name: silicon
material: Si
goal: elastic
protocol: fast
seed: 42
budget:
  labels: 80
  hours: 1.0
generate:
  max_atoms: 36
loop:
  min_generations: 3
  max_generations: 5
"""


def node(pk: int, kind: str, label: str = "") -> NodeRef:
    return NodeRef(uuid=str(uuid.UUID(int=pk * 7919 << 64 | pk)), pk=pk, label=label, kind=kind)


def _simulation(
    rng: np.random.Generator, pk: int, generation: int, temperature: float
) -> Simulation:
    n = 400
    noise = np.cumsum(rng.normal(0, 0.04, n))
    gamma = (
        1.1 + 9.0 / generation**1.7 * (temperature / 900) ** 2 * np.linspace(0.2, 1.3, n)
    ) * np.exp(0.25 * noise / (1 + generation))
    above = np.flatnonzero(gamma > 10.0)
    stop = int(above[0]) + 1 if above.size else n
    step = np.arange(stop) * 25
    return Simulation(
        temperature_K=temperature,
        ensemble="npt" if temperature < 600 else "nvt",
        start="vacancy" if temperature > 600 else "bulk",
        steps_done=int(step[-1]) if above.size else 10000,
        steps_asked=10000,
        halted=bool(above.size),
        halt_reason="gamma 10.4 above 10 at atom 31" if above.size else "",
        trace=Trace(
            step=step,
            time_ps=step * 0.002,
            gamma_max=gamma[:stop],
            temperature_K=temperature + rng.normal(0, 25, stop),
        ),
        node=node(pk, "CalcJob", "autopipe.lammps"),
    )


def _generation(rng: np.random.Generator, index: int, labels: int) -> Generation:
    scale = 2.0 ** (1 - index)
    base = 1000 + 100 * index
    temperatures = (300.0, 600.0, 900.0)
    runs = [_simulation(rng, base + 10 + i, index, t) for i, t in enumerate(temperatures)]
    return Generation(
        index=index,
        n_train=round(labels * 0.88),
        n_test=labels - round(labels * 0.88) - 1,
        labels_total=labels,
        train=ErrorMetrics(
            energy_mae_per_atom=0.0012 * scale,
            energy_rmse_per_atom=0.0016 * scale,
            forces_mae=0.021 * scale,
            forces_rmse=0.031 * scale,
            stress_mae=0.0004 * scale,
        ),
        test=ErrorMetrics(
            energy_mae_per_atom=0.0031 * scale,
            energy_rmse_per_atom=0.0042 * scale,
            forces_mae=0.049 * scale,
            forces_rmse=0.068 * scale,
            stress_mae=0.0007 * scale,
        ),
        n_functions=312,
        survival=sum(r.steps_done for r in runs) / sum(r.steps_asked for r in runs),
        new_candidates=(41, 17, 3)[min(index, 3) - 1],
        gamma_max=max(max(run.trace.gamma_max) for run in runs),
        potential=node(base + 2, "PotentialData", f"generation {index}"),
        dataset=node(base + 1, "DatasetData", "training set"),
        metrics_node=node(base + 3, "Dict", "metrics"),
        md_node=node(base + 4, "WorkChain", "autopipe.md"),
        simulations=runs,
    )


def _split(rng: np.random.Generator, n: int, scale: float, pk: int) -> ParitySplit:
    energy = -107.9 + rng.gamma(2.0, 0.06, n)
    forces = rng.normal(0, 0.9, (16 * n, 3))
    return ParitySplit(
        energy_reference=energy,
        energy_potential=energy + rng.normal(0, 0.001 * scale, n),
        forces_reference=forces,
        forces_potential=forces + rng.normal(0, 0.02 * scale, forces.shape),
        dataset=node(pk, "DatasetData", "labelled"),
    )


def _row(
    name: str, label: str, unit: str, potential: float, reference: float, pk: int
) -> ValidationRow:
    error = (potential - reference) / abs(reference)
    return ValidationRow(
        name=name,
        label=label,
        unit=unit,
        potential=potential,
        reference=reference,
        relative_error=error,
        passed=abs(error) <= 0.1,
        potential_node=node(pk, "Dict", f"{name}, potential"),
        reference_node=node(pk + 1, "Dict", f"{name}, pw.x"),
    )


def _validation() -> list[ValidationRow]:
    return [
        _row("lattice_constant", "Lattice constant", "Å", 5.4021, 5.3987, 3001),
        _row("bulk_modulus", "Bulk modulus", "GPa", 93.1, 95.8, 3003),
        _row("C11", "C11", "GPa", 155.2, 159.6, 3005),
        _row("C12", "C12", "GPa", 62.1, 63.9, 3007),
        _row("C44", "C44", "GPa", 65.3, 76.8, 3009),
        _row("vacancy_formation_energy", "Vacancy formation energy", "eV", 3.71, 3.58, 3011),
    ]


def _eos(shift: float, pk: int) -> EnergyVolumeCurve:
    volume = np.linspace(17.5, 22.0, 9)
    energy = -107.92 + 0.0152 * (volume - 19.67 - shift) ** 2
    return EnergyVolumeCurve(
        volume_per_atom=volume, energy_per_atom=energy, node=node(pk, "Dict", "equation of state")
    )


def make_report(**changes: object) -> Report:
    rng = np.random.default_rng(5)
    values: dict[str, object] = {
        "name": "silicon",
        "material": "Si",
        "goal": "elastic",
        "protocol": "fast",
        "seed": 42,
        "created": datetime(2026, 1, 15, 12, 30, tzinfo=UTC),
        "autopipe_version": "0.1.0",
        "process": node(812, "WorkChain", "autopipe.active_learning"),
        "stop_reason": "all criteria met after 3 generations: survival 1.00, 3 new candidates",
        "wall_seconds": 1284.0,
        "time_shares": {"pw.x": 861.0, "AiiDA": 190.0, "training": 74.0, "MD": 121.0},
        "software": {
            "aiida-core": "2.7.1",
            "pw.x": "6.7",
            "LAMMPS": "22 Jul 2025",
            "numba": "0.62",
        },
        "config_yaml": CONFIG,
        "config_node": node(805, "Dict", "expanded configuration"),
        "labels": LabelCounts(
            requested=64,
            ok=61,
            rejected=3,
            budget=80,
            labelled_node=node(1402, "DatasetData", "labelled"),
            rejected_node=node(1403, "DatasetData", "rejected"),
            reasons=[
                RejectedReason(
                    reason="SCF did not converge in 2 attempts",
                    count=2,
                    example=node(933, "WorkChain", "autopipe.pw"),
                ),
                RejectedReason(reason="atoms 0.8 Å apart", count=1, example=node(951, "WorkChain")),
            ],
        ),
        "generations": [_generation(rng, i + 1, n) for i, n in enumerate((34, 52, 61))],
        "gamma_select": 2.0,
        "gamma_halt": 10.0,
        "parity": Parity(train=_split(rng, 120, 1.0, 1391), test=_split(rng, 14, 2.5, 1392)),
        "validation": _validation(),
        "eos_reference": _eos(0.0, 3020),
        "eos_potential": _eos(0.06, 3021),
        "composition": [
            OriginCount(origin="volumetric strain", n_structures=9, n_atoms=18),
            OriginCount(origin="shear strain", n_structures=8, n_atoms=16),
            OriginCount(origin="rattle", n_structures=14, n_atoms=112),
            OriginCount(origin="vacancy", n_structures=3, n_atoms=21),
            OriginCount(origin="MD, generation 1", n_structures=18, n_atoms=288),
            OriginCount(origin="MD, generation 2", n_structures=9, n_atoms=144),
        ],
        "method": Method(
            oracle="pw.x",
            functional="PBE",
            pseudopotentials={"Si": "Si.pbe-n-rrkjus_psl.1.0.0.UPF"},
            cutoff_wfc_Ry=30.0,
            cutoff_rho_Ry=240.0,
            kspacing_per_A=0.25,
            smearing="cold",
            smearing_width_Ry=0.01,
            spin=False,
            fingerprint="9f2c61d04be7",
        ),
        "reference_energies": [
            ReferenceEnergy(element="Si", energy=-103.2144831, node=node(861, "Dict", "Si atom"))
        ],
        "files": {"yace": "potential.yace", "yaml": "potential.yaml", "asi": "potential.asi"},
        "warnings": ["The held-out set has only 6 structures; its errors are uncertain."],
    }
    return Report.model_validate(values | changes)


@pytest.fixture
def report() -> Report:
    return make_report()


@pytest.fixture
def report_factory():
    return make_report
