"""A descriptor whose features are known, and which costs nothing."""

import time

import numpy as np

from aiida_autopipe.core.errors import DataError


class Toy:
    """A descriptor whose features are known: of each atom its x and its atomic number."""

    kind = "toy"
    elements = ("C", "Si")
    n_features = 2

    def __init__(self, scale=1.0, pause=0.0):
        self.scale, self.pause = scale, pause

    def settings(self):
        return {"descriptor": "toy", "scale": self.scale}

    def compute(self, structures, *, threads=1):
        time.sleep(self.pause)
        for atoms in structures:
            if atoms.positions[0, 0] > 50:
                raise DataError("Atom 0 is far away.")
        rows = [np.stack([self.scale * a.positions[:, 0], a.numbers], axis=1) for a in structures]
        return np.concatenate(rows)
