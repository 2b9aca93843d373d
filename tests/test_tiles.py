"""Tiles cover a picture exactly, and what lies beyond a halo never matters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from work_folders import random_params

from cmtl_jax import config as base_config
from cmtl_jax import trained_model
from cmtl_jax.prediction.counter import TILE_PIXELS
from cmtl_jax.prediction.tiles import GRID, HALO, best_shape, tiles


@pytest.mark.parametrize("height, width", [(1, 1), (4, 300), (97, 64), (128, 129), (333, 251)])
@pytest.mark.parametrize("shape", [(116, 116), (128, 120), (176, 400), (500, 132)])
def test_cores_cover_every_pixel_once(height, width, shape):
    number = np.arange(height * width).reshape(height, width)
    seen = np.zeros((height, width), int)
    for tile in tiles(height, width, shape):
        seen[tile.core] += 1
        np.testing.assert_array_equal(number[tile.read][tile.inner], number[tile.core])
        for read, kept, side, most in zip(
            tile.read, tile.core, (height, width), shape, strict=True
        ):
            assert read.start % GRID == 0  # the grid of the poolings
            assert kept.start % GRID == 0  # its cells belong to one tile
            assert read.stop % GRID == 0 or read.stop == side
            assert kept.start - read.start >= min(HALO, kept.start)
            assert read.stop - kept.stop >= min(HALO, side - kept.stop)
            # All read as much as there is: nothing is padded but the last rows of the grid.
            assert min(most, side) - GRID < read.stop - read.start <= most
    assert (seen == 1).all()


@pytest.mark.parametrize("side", [116, 160, 256])
def test_no_tile_could_be_left_out(side):
    """One tile fewer could not reach from end to end with halos between."""
    for length in (*range(1, 400), 4000, 6001):
        fewer = sum(1 for _ in tiles(length, 4, (side, 4))) - 1
        assert fewer == 0 or fewer * (side - 2 * HALO) + 2 * HALO < length, length


def test_tiles_that_have_no_room_are_refused():
    for shape in ((118, 120), (120, 118), (112, 120), (64, 64)):
        with pytest.raises(ValueError, match="tile"):
            list(tiles(300, 300, shape))
    assert len(list(tiles(300, 64, (120, 64)))) > 1  # whole in one direction
    with pytest.raises(ValueError, match="multiple of 4"):
        best_shape(300, 300, 40_000, 6)
    with pytest.raises(ValueError, match="halos"):
        best_shape(300, 300, 100 * 100, 4)


@pytest.mark.parametrize(
    "height, width, most", [(6000, 8000, 2**20), (500, 9000, 2**18), (100, 5000, 2**19)]
)
def test_no_shape_leaves_less_to_compute(height, width, most):
    """Against every shape within the limit, counted out."""

    def computed(shape):
        number = sum(1 for _ in tiles(height, width, shape))
        return number * shape[0] * shape[1]

    step = 128
    shape = best_shape(height, width, most, step)
    assert shape[0] % step == shape[1] % step == 0 and shape[0] * shape[1] <= most
    others = [
        (h, w)
        for h in range(step, height + step, step)
        for w in range(step, width + step, step)
        if h * w <= most
    ]
    assert len(others) > 20
    assert computed(shape) == min(map(computed, others))


def test_halos_repeat_no_more_than_a_quarter_of_a_large_picture():
    shape = best_shape(6000, 8000, TILE_PIXELS, 64)
    read = [tile.read for tile in tiles(6000, 8000, shape)]
    pixels = sum((r.stop - r.start) * (c.stop - c.start) for r, c in read)
    assert len({(r.stop - r.start, c.stop - c.start) for r, c in read}) == 1
    assert pixels < 1.25 * 6000 * 8000


def test_the_halo_is_as_wide_as_the_network_sees():
    """One bright pixel: where it changes the density, for every place on the grid of poolings.

    With positive weights and without biases the density is positive just where it is reached.
    """
    model = trained_model.build_model(base_config.base())
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.zeros_like(x) if path[-1].key == "bias" else jnp.abs(x) + 1e-3,
        random_params(model),
    )
    side = 144
    density = jax.jit(
        lambda image: model.apply({"params": params}, image, np.array([[side, side]])).density
    )
    reach = 0
    for offset in range(GRID):
        bright = (72 + offset, 72 + (offset * 3) % GRID)
        image = np.zeros((1, side, side, 1), np.float32)
        image[0, *bright] = 1
        touched = np.argwhere(np.asarray(density(image))[0, :, :, 0] > 0)
        reach = max(reach, int(np.abs(touched - bright).max()))
    assert HALO - GRID <= reach < HALO
