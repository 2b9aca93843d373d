"""Smoothing of counts over time."""

import numpy as np
import pytest

from cmtl_jax.prediction.smoothing import Smoother


def test_is_the_weighted_mean_of_all_so_far():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0, 2, 30))
    counts = rng.uniform(0, 100, (30, 3))
    smooth = Smoother(1.5)
    for i, (now, count) in enumerate(zip(times, counts, strict=True)):
        weight = np.exp(-(now - times[: i + 1]) / 1.5)
        expected = weight @ counts[: i + 1] / weight.sum()
        np.testing.assert_allclose(smooth(count, now), expected, rtol=1e-12)


def test_a_constant_stays_and_nothing_starts_from_zero():
    smooth = Smoother(10.0)
    assert [smooth(np.array([7.0]), t)[0] for t in (0, 0.1, 50, 1e6)] == pytest.approx([7.0] * 4)


def test_noise_shrinks():
    rng = np.random.default_rng(1)
    raw = 50 + rng.normal(0, 5, 500)
    smooth = Smoother(1.0)
    smoothed = np.array([smooth(x[None], i / 25)[0] for i, x in enumerate(raw)])
    assert smoothed[100:].std() < raw.std() / 4


def test_a_clock_that_jumps_back_does_no_harm():
    smooth = Smoother(1.0)
    smooth(np.array([1.0]), 5.0)
    assert smooth(np.array([3.0]), 4.0)[0] == pytest.approx(2.0)
