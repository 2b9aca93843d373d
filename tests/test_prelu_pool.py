import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import assert_close, derivatives, needs_kernels, normal

from cmtl_jax.kernels import library, prelu_pool
from cmtl_jax.models import layers


@needs_kernels
@pytest.mark.parametrize("slope", [0.25, -0.5, 0.0])
@pytest.mark.parametrize("shape", [(2, 6, 10, 20), (1, 2, 2, 1), (3, 40, 18, 32), (1, 36, 4, 7)])
def test_equals_pooling_after_a_prelu_also_where_several_are_largest(shape, slope):
    rng = np.random.default_rng(0)
    b, h, w, c = shape
    x = jnp.round(2 * normal(rng, *shape))  # many are equal
    g = normal(rng, b, h // 2, w // 2, c)
    got = derivatives(prelu_pool.pool, (x, jnp.float32(slope)), g)
    want = derivatives(
        lambda x, slope: layers._max_pool(layers.prelu(x, slope)), (x, jnp.float32(slope)), g
    )
    assert_close(got, want)


def test_suits_what_kernels_may_be_used_for():
    x = jnp.ones((1, 4, 4, 8))
    assert not prelu_pool.suits(x)
    with library.in_use():
        assert prelu_pool.suits(x) == library.available()
        assert not prelu_pool.suits(x.astype(jnp.bfloat16))
        assert not prelu_pool.suits(x[:0])
