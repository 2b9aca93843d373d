"""Tiles cover a picture exactly, and what lies beyond a halo never matters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from work_folders import random_params

from cmtl_jax import config as base_config
from cmtl_jax import trained_model
from cmtl_jax.prediction.tiles import GRID, HALO, tiles


@pytest.mark.parametrize("height, width", [(1, 1), (4, 300), (97, 64), (128, 129), (333, 251)])
@pytest.mark.parametrize("core", [4, 64, 128])
def test_cores_cover_every_pixel_once(height, width, core):
    number = np.arange(height * width).reshape(height, width)
    seen = np.zeros((height, width), int)
    for tile in tiles(height, width, core):
        seen[tile.core] += 1
        np.testing.assert_array_equal(number[tile.read][tile.inner], number[tile.core])
        for read, kept, side in zip(tile.read, tile.core, (height, width), strict=True):
            assert read.start % GRID == 0  # the grid of the poolings
            assert read.stop % GRID == 0 or read.stop == side
            assert kept.start - read.start == min(HALO, kept.start)
            assert read.stop - kept.stop == min(HALO, side - kept.stop)
            assert read.stop - read.start <= core + 2 * HALO
    assert (seen == 1).all()


def test_a_core_off_the_grid_is_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        next(tiles(10, 10, 6))


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
