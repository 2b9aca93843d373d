import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import (
    assert_close,
    derivatives,
    needs_kernels,
    normal,
    plain_convolution,
    sizes,
)

from cmtl_jax.kernels import library, shallow_convolution
from cmtl_jax.models import layers

# (B, H, W, k, Ci, Co)
SHAPES = [(2, 37, 50, 9, 1, 16), (1, 1, 1, 9, 1, 16), (3, 17, 11, 7, 3, 24), (2, 8, 30, 5, 4, 8),
          (1, 9, 12, 3, 2, 33)]  # fmt: skip


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_plain_layer_and_its_gradients(shape):
    b, h, w, k, n_in, n_out = shape
    rng = np.random.default_rng(0)
    given = normal(rng, b, h, w, n_in), normal(rng, k, k, n_in, n_out), normal(rng, n_out)
    size, g = sizes(rng, b, h, w), normal(rng, b, h, w, n_out)
    got = derivatives(lambda *a: shallow_convolution.convolve(*a, size), given, g)
    want = derivatives(
        lambda x, kernel, bias: layers.apply_mask(plain_convolution(x, kernel) + bias, size),
        given, g,
    )  # fmt: skip
    assert_close(got, want)


def test_suits_only_what_it_is_made_for():
    x, kernel = jnp.ones((1, 20, 20, 1)), jnp.ones((9, 9, 1, 16))
    assert not shallow_convolution.suits(x, kernel)
    with library.in_use():
        assert shallow_convolution.suits(x, kernel) == library.available()
        assert not shallow_convolution.suits(x, kernel[:8])
        assert not shallow_convolution.suits(x, kernel[..., :4])
        assert not shallow_convolution.suits(jnp.ones((1, 20, 20, 8)), jnp.ones((9, 9, 8, 16)))
