"""Light, exposure, blur and noise of drawn pictures."""

import cv2
import numpy as np
import pytest

from cmtl_jax.datasets import photograph


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _canvas(height: int = 40, width: int = 60) -> np.ndarray:
    return _rng(0).integers(0, 256, (2 * height, 2 * width, 3)).astype(np.uint16)


def test_a_canvas_becomes_a_picture_of_half_its_sides_the_same_each_time():
    canvas = _canvas()
    pictures = [photograph.take(_rng(seed), _rng(seed + 1), canvas) for seed in (0, 0, 1)]
    assert pictures[0].shape == (40, 60, 3) and pictures[0].dtype == np.uint8
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])
    assert np.array_equal(canvas, _canvas())  # left alone


def test_light_is_never_below_0_and_differs_between_pictures():
    grey = np.full((80, 120, 3), 128, np.uint16)
    lit = [photograph.light(_rng(seed), grey) for seed in range(60)]
    assert all(one.dtype == np.float32 and one.min() >= 0 for one in lit)
    assert len({round(float(one.mean()), 3) for one in lit}) == 60
    colours = np.array([one.mean((0, 1)) / one.mean() for one in lit])
    assert np.ptp(colours[:, [0, 2]], axis=0).min() > 0.2  # warm light and cold
    assert (np.ptp(colours, axis=1) < 1e-3).sum() >= 10  # and white


@pytest.mark.parametrize("mean, spread", [(20, 5), (120, 40), (230, 15)])
def test_exposure_hides_how_light_and_how_flat_a_scene_was(mean, spread):
    scene = np.clip(_rng(1).normal(mean, spread, (60, 80, 3)), 0, 255).astype(np.float32)
    taken = [photograph.expose(_rng(seed), scene) for seed in range(80)]
    means = [one.mean() for one in taken]
    assert all(one.dtype == np.uint8 for one in taken)
    assert 68 < min(means) < 85 and 165 < max(means) < 182
    greys = [cv2.cvtColor(one, cv2.COLOR_RGB2GRAY).std() for one in taken]
    assert max(greys) < 62
    for one in taken:  # light stays lighter than dark
        assert np.corrcoef(one.ravel(), scene.ravel())[0, 1] > 0.95


def test_the_sensor_adds_noise_alike_in_all_colours_and_of_mean_0():
    flat = np.full((120, 160, 3), 100, np.uint8)
    stds = []
    for seed in range(30):
        noise = photograph.sense(_rng(seed), flat).astype(int) - 100
        assert np.ptp(noise, axis=2).max() == 0
        assert abs(noise.mean()) < 0.2
        stds.append(noise.std())
    assert 0.9 < min(stds) < 2 and 4 < max(stds) < 5.5


def test_some_pictures_are_a_little_blurred():
    edge = np.zeros((40, 40, 3), np.uint8)
    edge[:, 20:] = 200
    steps = []
    for seed in range(40):
        taken = photograph.sense(_rng(seed), edge).astype(float)
        steps.append(taken[:, 20].mean() - taken[:, 19].mean())
    assert max(steps) > 195 and min(steps) < 170
