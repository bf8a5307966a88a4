"""Fewer points for a plot, without hiding what matters: outliers and peaks stay."""

import math


def largest_errors_and_even_sample(
    reference: list[float], predicted: list[float], limit: int
) -> list[int]:
    """Indices of at most `limit` points: a tenth by largest error, the rest spread evenly."""
    total = len(reference)
    if total <= limit:
        return list(range(total))
    by_error = sorted(range(total), key=lambda i: -abs(predicted[i] - reference[i]))
    n_worst = limit // 10
    rest = sorted(by_error[n_worst:])
    n_even = limit - n_worst
    even = [rest[k * len(rest) // n_even] for k in range(n_even)]
    return sorted(by_error[:n_worst] + even)


def peaks(values: list[float], limit: int) -> list[int]:
    """Indices of at most `limit` points of a series: the largest of each of equal stretches.

    The first and last points always stay; NaN never wins against a number.
    """
    total = len(values)
    if total <= limit:
        return list(range(total))
    inner = limit - 2
    chosen = [0]
    for k in range(inner):
        stretch = range(1 + k * (total - 2) // inner, 1 + (k + 1) * (total - 2) // inner)
        chosen.append(max(stretch, key=lambda i: _rank(values[i])))
    return [*chosen, total - 1]


def _rank(value: float) -> float:
    return -math.inf if math.isnan(value) else value
