"""What a count is held against."""

import numpy as np
import pytest

from cmtl_jax import config as base_config
from cmtl_jax.evaluation import ground_truth
from cmtl_jax.input_pipeline.picture import Picture


def picture(height, width, density, heads=3):
    points = np.zeros((heads, 2), np.float32)
    return Picture("a", np.zeros((height, width, 1), np.uint8), points, density)


def test_points_and_the_sum_of_the_map():
    one = picture(5, 7, np.full((5, 7), 0.1, np.float32))
    assert ground_truth.count("points", one) == 3
    assert ground_truth.count("density", one) == pytest.approx(3.5)


def test_an_even_map_of_sides_that_4_divides_keeps_its_sum():
    even = picture(8, 16, np.full((8, 16), 0.25, np.float32))
    for rule in ("density", "reference_py2", "reference_py3"):
        assert ground_truth.count(rule, even) == pytest.approx(32)


def test_the_ratio_of_areas_is_rounded_down_in_python_2():
    even = picture(9, 17, np.full((9, 17), 0.25, np.float32))  # 2x4 pixels: 153 / 8 = 19.125
    assert ground_truth.count("reference_py3", even) == pytest.approx(9 * 17 * 0.25)
    assert ground_truth.count("reference_py2", even) == pytest.approx(8 * 19 * 0.25)


def test_bilinear_interpolation_leaves_people_out():
    """The centre of a new pixel lies between the old pixels 1 and 2; 0 and 3 are not read."""
    density = np.zeros((4, 8), np.float32)
    density[0, 0] = density[3, 7] = 1
    assert ground_truth.count("reference_py2", picture(4, 8, density)) == 0
    density[1, 1] = 1
    assert ground_truth.count("reference_py2", picture(4, 8, density)) == pytest.approx(16 / 4)


def test_every_rule_is_a_value_of_the_key():
    config = base_config.base()
    config.dataset.name = "synthetic"
    for rule in ground_truth.RULES:
        config.eval.ground_truth = rule
        base_config.validate(config)
