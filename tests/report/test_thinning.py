"""Thinned plots keep outliers and peaks."""

import numpy as np

from aiida_autopipe.report.thinning import largest_errors_and_even_sample, peaks


def test_few_points_are_all_kept():
    assert largest_errors_and_even_sample([1.0, 2.0], [1.0, 2.5], 5) == [0, 1]
    assert peaks([3.0, 1.0], 5) == [0, 1]


def test_largest_errors_stay_and_indices_are_unique():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=5000)
    predicted = reference + rng.normal(scale=0.01, size=5000)
    predicted[[17, 4711]] += 5.0
    chosen = largest_errors_and_even_sample(reference.tolist(), predicted.tolist(), 300)
    assert len(chosen) == len(set(chosen)) == 300
    assert chosen == sorted(chosen)
    assert {17, 4711} <= set(chosen)


def test_peaks_keep_the_maximum_and_the_ends():
    values = np.random.default_rng(1).random(1003)
    values[637] = 40.0
    values[638] = np.nan
    chosen = peaks(values.tolist(), 50)
    assert len(chosen) == len(set(chosen)) == 50
    assert (chosen[0], chosen[-1]) == (0, 1002)
    assert 637 in chosen and 638 not in chosen
