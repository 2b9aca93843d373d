"""The transposed convolution as a matrix product against Flax's plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cmtl_jax.models.transposed_convolution import conv_transpose2d


def plain(x, kernel):
    n_out = kernel.shape[3]
    layer = nn.ConvTranspose(n_out, (4, 4), strides=(2, 2), padding="SAME", use_bias=False)
    return layer.apply({"params": {"kernel": kernel}}, x)


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 1, 1, 2), (3, 1, 6, 1)])
def test_values_and_gradients_are_those_of_the_plain_one(shape):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.standard_normal(shape))
        kernel = jnp.asarray(rng.standard_normal((4, 4, shape[3], 5)))
        cotangent = jnp.asarray(rng.standard_normal((shape[0], 2 * shape[1], 2 * shape[2], 5)))
        y, back = jax.vjp(conv_transpose2d, x, kernel)
        expected, plain_back = jax.vjp(plain, x, kernel)
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
        for ours, theirs in zip(back(cotangent), plain_back(cotangent), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_another_kernel_is_refused():
    for kernel in (jnp.ones((3, 3, 2, 1)), jnp.ones((4, 4, 3, 1))):
        with pytest.raises(ValueError, match="4, 4, Ci, Co"):
            conv_transpose2d(jnp.ones((1, 2, 2, 2)), kernel)
