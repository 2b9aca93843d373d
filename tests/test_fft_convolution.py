import jax
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

from cmtl_jax.kernels import fft_convolution, library
from cmtl_jax.models import layers

# (B, H, W, k, Ci, Co): one tile and less, one row more than tiles, odd numbers of tiles, channels
# that fill no vector, and the layers of the network.
SHAPES = [
    (1, 12, 12, 5, 8, 8),
    (2, 8, 26, 9, 32, 16),
    (3, 37, 50, 7, 16, 32),
    (1, 25, 41, 7, 32, 20),
    (5, 13, 12, 5, 20, 40),
    (2, 24, 24, 7, 16, 8),
    (1, 1, 200, 5, 17, 10),
    (2, 27, 30, 3, 18, 24),
    (1, 15, 13, 3, 24, 32),
]


def arrays(shape, seed=0):
    b, h, w, k, n_in, n_out = shape
    rng = np.random.default_rng(seed)
    x, kernel, bias = normal(rng, b, h, w, n_in), normal(rng, k, k, n_in, n_out), normal(rng, n_out)
    return x, kernel, bias, sizes(rng, b, h, w), normal(rng, b, h, w, n_out)


def plain(x, slope, kernel, bias, size):
    return layers.apply_mask(plain_convolution(layers.prelu(x, slope), kernel) + bias, size)


@needs_kernels
@pytest.mark.parametrize("slope", [0.25, -0.3, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_plain_layer_and_its_gradients(shape, slope):
    x, kernel, bias, size, g = arrays(shape)
    given = (x, jnp.float32(slope), kernel, bias)
    got = derivatives(lambda *a: fft_convolution.convolve(*a, size), given, g)
    assert_close(got, derivatives(lambda *a: plain(*a, size), given, g))


@needs_kernels
def test_without_an_activation():
    x, kernel, bias, size, g = arrays(SHAPES[2])
    got = derivatives(lambda x, k, b: fft_convolution.convolve(x, None, k, b, size), (x, kernel, bias), g)
    want = derivatives(lambda x, k, b: plain(x, jnp.float32(1), k, b, size), (x, kernel, bias), g)
    assert_close(got, want)


@needs_kernels
def test_large_pictures_stay_exact():
    x, kernel, bias, size, g = arrays((1, 300, 401, 9, 32, 16), seed=1)
    size = jnp.array([[300, 401]])
    given = (x, jnp.float32(0.25), kernel, bias)
    got = derivatives(lambda *a: fft_convolution.convolve(*a, size), given, g)
    assert_close(got, derivatives(lambda *a: plain(*a, size), given, g))


@needs_kernels
def test_the_same_numbers_every_time():
    x, kernel, bias, size, g = arrays((4, 60, 70, 7, 16, 32))
    given = (x, jnp.float32(0.25), kernel, bias)
    function = jax.jit(lambda *a: derivatives(lambda *b: fft_convolution.convolve(*b, size), a, g))
    first = function(*given)
    for _ in range(5):
        for a, b in zip(function(*given), first, strict=True):
            assert np.array_equal(a, b)


@needs_kernels
def test_a_batch_of_kernels():
    x, kernel, bias, size, g = arrays(SHAPES[0])
    several = jnp.stack([kernel, -2 * kernel])
    slope = jnp.float32(0.25)
    got = jax.vmap(
        lambda k: derivatives(lambda *a: fft_convolution.convolve(*a, size), (x, slope, k, bias), g)
    )(several)
    for i, k in enumerate(several):
        want = derivatives(lambda *a: plain(*a, size), (x, slope, k, bias), g)
        assert_close([part[i] for part in got], want)


def test_suits_only_what_it_is_made_for():
    x, kernel, *_ = arrays(SHAPES[2])
    assert not fft_convolution.suits(x, kernel)
    with library.in_use():
        assert fft_convolution.suits(x, kernel) == library.available()
        assert not fft_convolution.suits(x.astype(jnp.bfloat16), kernel)
        assert not fft_convolution.suits(x[..., :1], kernel[:, :, :1])
        assert not fft_convolution.suits(x, kernel[:1, :1])
        assert not fft_convolution.suits(x, kernel[:5])
        assert not fft_convolution.suits(x[:, :10, :10], kernel)
        with library.in_use(False):
            assert not fft_convolution.suits(x, kernel)
