"""The configuration file of `mace_run_train`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from ase.data import atomic_numbers

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.mace_evaluate import HEAD
from aiida_autopipe.core.mace_settings import MaceSettings

NAME = "mace"
ENERGY_KEY, FORCES_KEY, STRESS_KEY = "REF_energy", "REF_forces", "REF_stress"
TRAIN_FILE, VALID_FILE = "train.xyz", "valid.xyz"
REPLAY_FILE, REPLAY_VALID_FILE = "replay.xyz", "replay_valid.xyz"
CHECKPOINTS, RESULTS = "checkpoints", "results"
MODEL_FILE = f"{NAME}.model"
BASE_FILE = "base.model"
REPLAY_HEAD = "pt_head"
"""How MACE calls the part of a model that learns from the replayed data."""

_RATES = {"scratch": 0.01, "naive": 0.001, "multihead": 0.0001}


@dataclass(frozen=True)
class Facts:
    """What the configuration needs to know besides the settings.

    Attributes:
        n_train: structures to learn from.
        n_replay: replayed structures, 0 without.
        has_stress: whether any structure has a stress.
        reference_energies: isolated-atom energy in eV by element.
        device: 'cpu' or 'cuda'.
        base: file of the model to start from, or None.
    """

    n_train: int
    n_replay: int
    has_stress: bool
    reference_energies: Mapping[str, float]
    device: str
    base: str | None = None

    @property
    def mode(self) -> str:
        """'scratch', or 'naive' or 'multihead' fine-tuning."""
        if self.base is None:
            return "scratch"
        return "multihead" if self.n_replay else "naive"


def learning_rate(settings: MaceSettings, mode: str) -> float:
    """The learning rate of the start, see `MaceSettings`."""
    return _RATES[mode] if settings.learning_rate is None else settings.learning_rate


def arguments(settings: MaceSettings, facts: Facts, seed: int) -> dict[str, Any]:
    """Options of `mace_run_train` by name.

    Raises:
        InputError: replay without a model to start from.
    """
    if facts.n_replay and facts.base is None:
        raise InputError("Replayed data need the model that was trained on them as a start.")
    with_stress = facts.has_stress and settings.stress_weight > 0
    loss = settings.loss
    if loss == "weighted" and with_stress:
        loss = "stress"  # type: ignore[assignment]  # MACE's name for it
    energies = {atomic_numbers[e]: float(v) for e, v in facts.reference_energies.items()}
    options = {
        "name": NAME,
        "seed": seed,
        "checkpoints_dir": CHECKPOINTS,
        "results_dir": RESULTS,
        "log_dir": "logs",
        "model_dir": ".",
        "plot": False,
        "device": facts.device,
        "default_dtype": settings.precision,
        "train_file": TRAIN_FILE,
        "valid_file": VALID_FILE,
        "energy_key": ENERGY_KEY,
        "forces_key": FORCES_KEY,
        "stress_key": STRESS_KEY,
        "E0s": str(dict(sorted(energies.items()))),
        "loss": loss,
        "energy_weight": settings.energy_weight,
        "forces_weight": settings.forces_weight,
        "stress_weight": settings.stress_weight if with_stress else 0.0,
        "compute_stress": with_stress,
        "error_table": "PerAtomRMSEstressvirials" if with_stress else "PerAtomRMSE",
        # We evaluate the model ourselves, with its single head.
        "skip_evaluate_heads": f"{HEAD},{REPLAY_HEAD}",
        # MACE leaves out an incomplete last batch: with a larger one it would learn nothing.
        "batch_size": _batch_size(settings.batch_size, facts),
        "valid_batch_size": settings.batch_size,
        "lr": learning_rate(settings, facts.mode),
        "weight_decay": settings.weight_decay,
        "scheduler_patience": settings.lr_patience,
        "lr_factor": settings.lr_factor,
        "clip_grad": settings.clip_gradient,
        "max_num_epochs": settings.max_epochs,
        # Ours stops, because that of MACE 0.3.16 only says that it should.
        "patience": settings.max_epochs + 1,
        "ema": settings.ema_decay > 0,
        "restart_latest": True,
        "save_cpu": True,
        "pin_memory": facts.device == "cuda",
    }
    if settings.ema_decay > 0:
        options["ema_decay"] = settings.ema_decay
    return options | (_architecture(settings) if facts.base is None else _base(settings, facts))


def _batch_size(wanted: int, facts: Facts) -> int:
    least = min(facts.n_train, facts.n_replay) if facts.n_replay else facts.n_train
    return max(1, min(wanted, least))


def _architecture(settings: MaceSettings) -> dict[str, Any]:
    return {
        "model": "MACE",
        "r_max": settings.cutoff,
        "num_channels": settings.channels,
        "max_L": settings.max_L,
        "max_ell": settings.max_ell,
        "correlation": settings.correlation,
        "num_interactions": settings.layers,
        "num_radial_basis": settings.radial_functions,
        "radial_MLP": str(list(settings.radial_layers)),
        "MLP_irreps": f"{settings.readout_channels}x0e",
        "multiheads_finetuning": False,
    }


def _base(settings: MaceSettings, facts: Facts) -> dict[str, Any]:
    options: dict[str, Any] = {
        "foundation_model": facts.base,
        "multiheads_finetuning": facts.n_replay > 0,
    }
    if facts.n_replay:
        options |= {
            "pt_train_file": REPLAY_FILE,
            "pt_valid_file": REPLAY_VALID_FILE,
            "weight_pt_head": settings.replay_weight,
            # Otherwise MACE sets a learning rate and a moving average of its own.
            "force_mh_ft_lr": True,
        }
    return options


def config_text(options: Mapping[str, Any]) -> str:
    """The options as the YAML file that `mace_run_train --config` reads."""
    text: str = yaml.safe_dump(
        {key: value if _is_plain(value) else json.dumps(value) for key, value in options.items()},
        sort_keys=True,
    )
    return text


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)
