"""The settings of a MACE training: plain fields, that travel as JSON and as an AiiDA Dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, get_type_hints

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.values import as_type
from aiida_autopipe.core.mace_model import Device, Precision


@dataclass(frozen=True)
class MaceSettings:
    """How to train a MACE model (Batatia et al., NeurIPS 35, 11423, 2022).

    The architecture, the fields up to `readout_channels`, counts from scratch only: fine-tuning
    keeps that of the model it starts from.

    Attributes:
        cutoff: radius of one layer in Å; atoms `layers` times as far apart feel each other.
        channels: channels of the messages.
        max_L: largest angular momentum of the messages, 0 (invariant) to 3.
        max_ell: largest angular momentum of the spherical harmonics.
        correlation: neighbours in one product.
        layers: message passings.
        radial_functions: Bessel functions of the distance.
        radial_layers: widths of the network behind them.
        readout_channels: width of the last, non-linear readout.
        reference_energies: 'labels' takes the energies of the isolated atoms that come with the
            labels, else single atoms among them, else an estimate (see
            `aiida_autopipe.core.ace.references`); 'base' keeps those of the model it starts from.
        validation_fraction: part of the training structures that decides when to stop.
        masked: structures with a force mask, which MACE has no word for: 'drop' leaves them out and
            says so, 'refuse' refuses them.
        loss: 'weighted' squares, or 'universal' (Huber, by size of the force).
        energy_weight: of energies per atom.
        forces_weight: of force components.
        stress_weight: of stress components; 0 leaves stresses out.
        replay_weight: of the replayed data when the model it starts from must not forget them.
        max_epochs: most passes through the data.
        patience: epochs without a better validation loss after which the training ends.
        batch_size: structures in one step; fewer where there are fewer.
        learning_rate: of the start; None takes 0.01 from scratch, 0.001 for naive fine-tuning and
            0.0001 for fine-tuning with replay.
        weight_decay: L2 penalty.
        ema_decay: of the moving average of the weights, which is what is kept; 0 switches it off.
        lr_patience: epochs without a better loss after which the learning rate falls.
        lr_factor: by which it falls.
        clip_gradient: largest norm of a gradient.
        device: 'auto' takes a GPU where PyTorch finds one.
        precision: of the numbers.
        threads: of PyTorch on the processor.
        trust: needed to start from a model file that no process of this package made: MACE saves
            its models as pickles, and opening one runs whatever program its author put inside.
    """

    cutoff: float = 5.0
    channels: int = 64
    max_L: int = 1
    max_ell: int = 3
    correlation: int = 3
    layers: int = 2
    radial_functions: int = 8
    radial_layers: tuple[int, ...] = (64, 64, 64)
    readout_channels: int = 16
    reference_energies: Literal["labels", "base"] = "labels"
    validation_fraction: float = 0.1
    masked: Literal["drop", "refuse"] = "drop"
    loss: Literal["weighted", "universal"] = "weighted"
    energy_weight: float = 1.0
    forces_weight: float = 100.0
    stress_weight: float = 10.0
    replay_weight: float = 1.0
    max_epochs: int = 200
    patience: int = 30
    batch_size: int = 5
    learning_rate: float | None = None
    weight_decay: float = 5e-7
    ema_decay: float = 0.99
    lr_patience: int = 10
    lr_factor: float = 0.8
    clip_gradient: float = 10.0
    device: Device = "auto"
    precision: Precision = "float64"
    threads: int = 1
    trust: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MaceSettings:
        """Settings from plain values; raises InputError for unknown keys, types and ranges."""
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                near = get_close_matches(str(key), known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}."
                raise InputError(f"Unknown MACE setting '{key}'; {hint}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value = as_type(getattr(self, name), kind, f"The MACE setting {name}")
            object.__setattr__(self, name, value)
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            for one in value if isinstance(value, tuple) else (value,):
                if one is not None and not low <= one <= high:
                    raise InputError(
                        f"The MACE setting {name} is {value}; it must be between {low:g} and "
                        f"{high:g}."
                    )
        if not self.energy_weight + self.forces_weight:
            raise InputError("The MACE settings energy_weight and forces_weight are both 0.")


_BOUNDS: dict[str, tuple[float, float]] = {
    "cutoff": (1.0, 15.0),
    "channels": (1, 1024),
    "max_L": (0, 3),
    "max_ell": (0, 6),
    "correlation": (1, 5),
    "layers": (1, 6),
    "radial_functions": (1, 64),
    "radial_layers": (1, 1024),
    "readout_channels": (1, 256),
    "validation_fraction": (0.01, 0.5),
    "energy_weight": (0.0, 1e6),
    "forces_weight": (0.0, 1e6),
    "stress_weight": (0.0, 1e6),
    "replay_weight": (1e-3, 1e3),
    "max_epochs": (1, 10**6),
    "patience": (1, 10**6),
    "batch_size": (1, 10**5),
    "learning_rate": (1e-8, 1e3),
    "weight_decay": (0.0, 1.0),
    "ema_decay": (0.0, 0.99999),
    "lr_patience": (1, 10**6),
    "lr_factor": (0.01, 1.0),
    "clip_gradient": (1e-6, 1e6),
    "threads": (1, 256),
}
