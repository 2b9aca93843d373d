"""How far weights for close crowds take over."""

import numpy as np
import pytest

from cmtl_jax.prediction import close_crowds
from cmtl_jax.prediction.close_crowds import CLOSE, CROWD


@pytest.mark.parametrize(
    "streets, close, expected",
    [
        (CROWD[0], CLOSE[0], 1.0),
        (CROWD[0] / 2, CLOSE[0] / 2, 1.0),
        (CROWD[1], CLOSE[0], 0.0),  # leaves, in which the weights for streets see no crowd
        (CROWD[0], CLOSE[1], 0.0),
        (None, CLOSE[0], 0.0),
        (CROWD[0], None, 0.0),
        (CROWD[0], np.sqrt(np.prod(CLOSE)), 0.5),
        (np.sqrt(np.prod(CROWD)), np.sqrt(np.prod(CLOSE)), 0.25),
    ],
)
def test_they_count_where_both_see_people_stand_close(streets, close, expected):
    assert close_crowds.share(streets, close) == pytest.approx(expected)


def test_the_share_has_no_steps():
    spacings = np.geomspace(4, 100, 2000)
    for shares in (
        [close_crowds.share(s, 1.0) for s in spacings],
        [close_crowds.share(1.0, s) for s in spacings],
    ):
        assert shares[0] == 1 and shares[-1] == 0
        steps = np.diff(shares)
        assert steps.max() <= 0 and steps.min() > -0.02


def test_they_are_not_asked_where_they_could_have_no_share():
    for streets in (None, 10.0, 35.0, 39.0, 40.0, 300.0):
        most = max(close_crowds.share(streets, close) for close in np.geomspace(1, 100, 50))
        assert close_crowds.asked(streets) == most
