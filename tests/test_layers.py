"""Building blocks against plain formulations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmtl_jax.models import layers


def test_extent_rounds_up_to_multiples_of_4():
    size = jnp.array([[1, 4], [5, 8], [97, 100]])
    np.testing.assert_array_equal(layers.extent(size), [[4, 4], [8, 8], [100, 100]])


def test_mask_zeroes_outside_alone():
    x = jnp.ones((2, 3, 4, 5))
    masked = layers.apply_mask(x, jnp.array([[2, 3], [3, 1]]))
    assert masked[0].sum() == 2 * 3 * 5
    assert masked[1].sum() == 3 * 1 * 5
    assert masked[0, :2, :3].min() == 1


def test_max_pool_equals_the_pooling_window():
    x = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
    window = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    np.testing.assert_array_equal(layers.max_pool(x), window)


def test_max_pool_gradient_is_that_of_the_maximum_also_of_equal_values():
    x = jax.random.randint(jax.random.key(0), (2, 8, 12, 3), 0, 3).astype(jnp.float32)
    g = jax.random.normal(jax.random.key(1), (2, 4, 6, 3))
    (got,) = jax.vjp(layers.max_pool, x)[1](g)
    (expected,) = jax.vjp(lambda v: v.reshape(2, 4, 2, 6, 2, 3).max(axis=(2, 4)), x)[1](g)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def plain_adaptive_max_pool(x, bins):
    """The definition: cell (i, j) is the maximum of its rows and columns. x [H, W, C]."""
    h, w = x.shape[:2]
    cell = lambda i, n: slice(int(np.floor(i * n / bins)), int(np.ceil((i + 1) * n / bins)))  # noqa: E731
    return np.array(
        [[x[cell(i, h), cell(j, w)].max(axis=(0, 1)) for j in range(bins)] for i in range(bins)]
    )


@pytest.mark.parametrize("bins", [1, 2, 4, 32])
def test_adaptive_max_pool_equals_its_definition_inside_and_ignores_padding(bins):
    x = np.random.default_rng(0).normal(size=(5, 70, 45, 3)).astype(np.float32) - 5
    sizes = [(70, 45), (33, 31), (1, 1), (64, 32), (5, 40)]
    padded = x.copy()
    for i, (h, w) in enumerate(sizes):
        padded[i, h:] = padded[i, :, w:] = 1e6
    pooled = layers.adaptive_max_pool(jnp.asarray(padded), jnp.array(sizes), bins)
    for i, (h, w) in enumerate(sizes):
        np.testing.assert_array_equal(pooled[i], plain_adaptive_max_pool(x[i, :h, :w], bins))


def test_fractionally_strided_convolution_equals_its_definition():
    """Input pixel (i, j) adds its kernel at output rows 2i - 1 .. 2i + 2 (stride 2, padding 1)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 3, 5, 2)).astype(np.float32)
    layer = layers.MaskedConvTranspose(4, jax.nn.initializers.normal(1.0))
    size = jnp.array([[6, 10]])
    variables = layer.init(jax.random.key(0), x, size)
    kernel = np.asarray(variables["params"]["conv"]["kernel"])[::-1, ::-1]
    wide = np.zeros((6 + 4, 10 + 4, 4))
    for i in range(3):
        for j in range(5):
            added = np.einsum("c,hwcf->hwf", x[0, i, j], kernel)
            wide[2 * i + 1 : 2 * i + 5, 2 * j + 1 : 2 * j + 5] += added
    np.testing.assert_allclose(layer.apply(variables, x, size)[0], wide[2:-2, 2:-2], atol=1e-5)


def test_prelu_starts_at_a_slope_of_a_quarter():
    layer = layers.PReLU()
    x = jnp.array([-2.0, 0.0, 3.0])
    variables = layer.init(jax.random.key(0), x)
    np.testing.assert_allclose(layer.apply(variables, x), [-0.5, 0.0, 3.0])


def test_dropout_of_an_example_depends_on_its_key_alone():
    x = jnp.ones((3, 1000))
    keys = jax.random.split(jax.random.key(0), 3)
    dropped = layers.dropout(x, keys, 0.5)
    np.testing.assert_array_equal(dropped[1:2], layers.dropout(x[1:2], keys[1:2], 0.5))
    assert set(np.unique(dropped)) == {0.0, 2.0}
    assert abs(float(dropped.mean()) - 1) < 0.1
    assert layers.dropout(x, None, 0.5) is x
