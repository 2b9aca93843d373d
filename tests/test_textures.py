"""The drawn textures: any size, the same bytes again, and nothing alike."""

import cv2
import numpy as np
import pytest

from cmtl_jax.datasets import textures
from cmtl_jax.datasets.textures import render_texture


@pytest.fixture(scope="module")
def many() -> list[np.ndarray]:
    return [render_texture((5, i), 96, 128) for i in range(24)]


@pytest.mark.parametrize("seed", [0, (3, 1, 4)])
def test_same_arguments_give_the_same_bytes(seed):
    assert render_texture(seed, 97, 131).tobytes() == render_texture(seed, 97, 131).tobytes()


def test_threads_do_not_change_the_picture():
    threads = cv2.getNumThreads()
    try:
        drawn = []
        for number in (1, 4):
            cv2.setNumThreads(number)
            drawn.append([render_texture((8, i), 96, 128) for i in range(8)])
    finally:
        cv2.setNumThreads(threads)
    np.testing.assert_array_equal(*drawn)


def test_different_seeds_give_different_pictures():
    drawn = {render_texture(seed, 64, 64).tobytes() for seed in [0, 1, (0, 1), (1, 0)]}
    assert len(drawn) == 4


@pytest.mark.parametrize("size", [(32, 32), (33, 200), (301, 64), (1100, 1700)])
def test_any_size(size):
    picture = render_texture(2, *size)
    assert picture.shape == (*size, 3) and picture.dtype == np.uint8


@pytest.mark.parametrize(
    ("seed", "height", "width"), [(0, 31, 64), (0, 64, 31), (-1, 64, 64), ((1, -1), 64, 64)]
)
def test_what_cannot_be_drawn_is_refused(seed, height, width):
    with pytest.raises(ValueError):
        render_texture(seed, height, width)


@pytest.mark.parametrize("kind", ["_pieces", "_lattice", "_strokes", "_veins", "_weave", "_print"])
def test_each_kind_fills_a_plane_with_detail(kind):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        plane = getattr(textures, kind)(rng, textures._palette(rng))
        assert plane.shape == (textures.SIDE, textures.SIDE, 3) and plane.dtype == np.uint8
        # In each quarter: nothing is left blank.
        half = textures.SIDE // 2
        for part in (plane[:half, :half], plane[half:, half:]):
            assert len(np.unique(part.reshape(-1, 3), axis=0)) > 1


def test_planes_are_mirrored_where_a_picture_reaches_beyond():
    side = textures.SIDE
    place = np.array([0, 1, side - 1, side, side + 1, 2 * side - 1, 2 * side, 64 * side])
    found = textures._mirrored(place.astype(np.float64))
    np.testing.assert_array_equal(found, [0, 1, side - 1, side - 1, side - 2, 0, 0, 0])


def test_what_recedes_is_smaller_where_it_is_far():
    """Stripes cross the upper edge at least as often as the lower one, and mostly more often."""
    columns = np.arange(textures.SIDE) // 8 % 2 * 255
    plane = np.broadcast_to(columns[None, :, None], (textures.SIDE, textures.SIDE, 3))
    plane = plane.astype(np.uint8)

    class Straight:
        """A generator that neither turns nor zooms, and recedes to a third."""

        def random(self):
            return self.draws.pop(0)

        def uniform(self, low, high):
            return {0.7: 1.0, 1.2: 3.0}[low]

        draws = [0.9, 0.1]

    canvas = textures._lay_out(Straight(), plane, 60, 120)
    edges = (np.diff(canvas[..., 0].astype(int), axis=1) != 0).sum(1)
    assert edges[0] == pytest.approx(3 * edges[-1], rel=0.1)
    assert (np.diff(edges) <= 1).all()


def test_light_and_contrast_vary(many):
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(float) for picture in many]
    means, spreads = np.array([g.mean() for g in grey]), np.array([g.std() for g in grey])
    assert np.ptp(means) > 60 and means.min() > 30 and means.max() < 225
    assert spreads.min() > 5 and np.ptp(spreads) > 20
