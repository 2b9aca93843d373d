"""What the tests of the kernels share: arrays, gradients, and the network with and without them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cmtl_jax.kernels import library

needs_kernels = pytest.mark.skipif(
    not library.available(), reason=f"no kernels: {library.why_not()}"
)


def normal(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def sizes(rng, batch, height, width):
    """Valid rows and columns: of the whole picture, and others of any size."""
    drawn = rng.integers(1, [height + 1, width + 1], (batch, 2))
    drawn[0] = height, width
    return jnp.asarray(drawn, jnp.int32)


def plain_convolution(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def derivatives(function, arguments, cotangent):
    """The value, and the gradients of all arguments."""
    y, vjp = jax.vjp(function, *arguments)
    return (y, *vjp(cotangent))


def assert_close(got, want, tolerance=3e-6):
    """Within that part of the largest value of each array; single numbers are sums of many."""
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        allowed = tolerance if a.ndim else 30 * tolerance
        assert np.abs(np.subtract(a, b)).max() <= allowed * max(np.abs(b).max(), 1e-6)
