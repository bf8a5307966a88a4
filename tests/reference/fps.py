"""Farthest-point sampling the slow and obvious way."""

import numpy as np
from numpy.typing import NDArray


def farthest_point(
    features: NDArray[np.floating], n: int, already: NDArray[np.floating] | None = None
) -> list[int]:
    """Each time the row whose nearest covered point is farthest."""
    covered = list(already) if already is not None and len(already) else []
    chosen: list[int] = []
    for _ in range(n):
        targets = covered + [features[i] for i in chosen] or [features.mean(axis=0)]
        distance = np.array([min(np.sum((x - t) ** 2) for t in targets) for x in features])
        distance[chosen] = -1.0
        chosen.append(int(np.argmax(distance)))
    return chosen
