"""Weights for grey pictures as weights for colours (ours)."""

from typing import Any

import jax
import jax.numpy as jnp

from cmtl_jax.pictures import LUMA

PyTree = Any


def of_grey(params: PyTree, expected: PyTree) -> PyTree:
    """Spreads kernels [h, w, 1, C] over three colours where those are expected.

    The network then sees the grey levels of a coloured picture, as before, until it is trained.

    Args:
        params: of a model for pictures of one channel.
        expected: arrays or shapes of the model that the parameters are for.

    Returns:
        params, with kernels [h, w, 3, C] where expected has such; the rest as it is.
    """
    weights = jnp.array(LUMA)[:, None]

    def spread(kernel, wanted):
        if kernel.ndim != 4 or (kernel.shape[2], wanted.shape[2]) != (1, len(LUMA)):
            return kernel
        return kernel * weights.astype(kernel.dtype)

    return jax.tree.map(spread, params, expected)
