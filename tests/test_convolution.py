import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cmtl_jax.models import convolution as module
from cmtl_jax.models.convolution import IMPLEMENTATIONS, conv2d

# (B, H, W, Ci, Co, kh, kw)
SHAPES = [
    (2, 9, 11, 1, 16, 9, 9),
    (2, 6, 12, 1, 16, 9, 9),
    (1, 3, 4, 1, 3, 5, 7),
    (2, 12, 8, 16, 32, 7, 7),
    (2, 7, 10, 32, 20, 7, 7),
    (3, 3, 4, 20, 40, 5, 5),
    (2, 5, 6, 40, 20, 5, 5),
    (2, 3, 2, 2, 18, 9, 9),
    (1, 6, 5, 8, 1, 1, 1),
    (1, 5, 9, 17, 33, 3, 3),
    (4, 8, 5, 3, 24, 3, 5),
    (9, 4, 5, 18, 20, 3, 3),
    (5, 4, 6, 32, 20, 3, 3),
]


def plain(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def arrays(shape, dtype, seed=0):
    b, h, w, n_in, n_out, kh, kw = shape
    rng = np.random.default_rng(seed)
    return tuple(
        jnp.asarray(rng.standard_normal(s), dtype)
        for s in [(b, h, w, n_in), (kh, kw, n_in, n_out), (b, h, w, n_out)]
    )


def value_and_gradients(f, x, kernel, cotangent):
    y, vjp = jax.vjp(f, x, kernel)
    return (y, *vjp(cotangent))


def assert_close(got, want, tolerance):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


def convolution(implementation):
    return lambda x, kernel: conv2d(x, kernel, implementation=implementation)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_equals_the_plain_convolution(implementation, shape, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        args = arrays(shape, dtype)
        want = value_and_gradients(plain, *args)
        got = jax.jit(lambda *a: value_and_gradients(convolution(implementation), *a))(*args)
        assert_close(got, want, tolerance)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_kernel_gradient_is_the_sum_over_positions(implementation):
    with jax.enable_x64(True):
        x, kernel, g = arrays((2, 4, 5, 3, 18, 3, 5), "float64")
        _, _, got = value_and_gradients(convolution(implementation), x, kernel, g)
        padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (2, 2), (0, 0)))
        want = np.zeros(kernel.shape)
        for i in range(3):
            for j in range(5):
                want[i, j] = np.einsum("bhwi,bhwo->io", padded[:, i : i + 4, j : j + 5], g)
        assert_close(got, want, 1e-12)


@pytest.mark.parametrize("shape", [(9, 4, 5, 18, 20, 3, 3), (17, 3, 4, 32, 20, 3, 3)])
def test_groups_of_large_pictures(shape, monkeypatch):
    monkeypatch.setattr(module, "_SMALL_AREA", 0)
    monkeypatch.setattr(module, "_shifted_is_faster", lambda *a: False)
    args = arrays(shape, "float32")
    got = value_and_gradients(convolution("grouped"), *args)
    assert_close(got, value_and_gradients(plain, *args), 1e-5)


def test_large_pictures_take_the_product_of_shifted_copies(monkeypatch):
    monkeypatch.setattr(module, "_SMALL_AREA", 0)
    for shape in [
        (2, 4, 6, 3, 2, 3, 3),
        (5, 24, 6, 3, 2, 3, 3),
        (2, 4, 6, 2, 3, 3, 3),
        (5, 24, 6, 16, 18, 3, 5),  # the roles exchanged
    ]:
        args = arrays(shape, "float32")
        grouped = functools.partial(module._grouped, size=shape[5:], precision=None)
        assert "scan" in str(jax.make_jaxpr(grouped)(args[0], args[2]))
        got = value_and_gradients(convolution("grouped"), *args)
        assert_close(got, value_and_gradients(plain, *args), 1e-5)
    many_narrow = arrays((5, 4, 6, 2, 3, 3, 3), "float32")
    assert not module._shifted_is_faster(many_narrow[0], many_narrow[2], (3, 3))


@pytest.mark.parametrize("implementation", ["auto", "split"])
def test_pmap_gives_the_same(implementation):
    args = arrays((2, 6, 7, 16, 20, 5, 5), "float32")
    want = value_and_gradients(plain, *args)

    def body(x, kernel, g):
        y, x_bar, kernel_bar = value_and_gradients(convolution(implementation), x, kernel, g)
        return y, x_bar, lax.psum(kernel_bar, "data")

    step = jax.pmap(
        body, "data", in_axes=(0, None, 0), out_axes=(0, 0, None), devices=jax.devices()[:1]
    )
    y, x_bar, kernel_bar = step(args[0][None], args[1], args[2][None])
    assert_close((y[0], x_bar[0], kernel_bar), want, 1e-5)


SHARDED = """
import jax, numpy as np
from jax.sharding import PartitionSpec as P
from cmtl_jax.models import convolution as module
from cmtl_jax.models.convolution import IMPLEMENTATIONS, conv2d
assert jax.device_count() == 2
rng = np.random.default_rng(0)
x = rng.standard_normal((4, 6, 7, 16)).astype("float32")
kernel = rng.standard_normal((5, 5, 16, 20)).astype("float32")
mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
for name in IMPLEMENTATIONS:
    def loss(x, k):
        return (conv2d(x, k, implementation=name) ** 2).sum()
    def body(x, k):
        return jax.grad(loss, argnums=1)(x, k)
    want = jax.grad(loss, argnums=1)(x, kernel)
    # A replicated kernel's gradient is summed over the devices by shard_map itself.
    mapped = jax.shard_map(body, mesh=mesh, in_specs=(P("data"), P()), out_specs=P())
    got = jax.jit(mapped)(x, kernel)
    assert np.linalg.norm(got - want) < 1e-5 * np.linalg.norm(want), name
    sharded = jax.device_put(x, jax.NamedSharding(mesh, P("data")))
    got = jax.jit(body)(sharded, kernel)
    assert np.linalg.norm(got - want) < 1e-5 * np.linalg.norm(want), name
print("sharded gradients agree")
"""


def test_two_devices_sum_the_kernel_gradient():
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    run = subprocess.run(
        [sys.executable, "-c", SHARDED], env=env, capture_output=True, text=True, check=False
    )
    assert "sharded gradients agree" in run.stdout, run.stderr


@pytest.mark.parametrize("implementation", ["auto", "split"])
def test_vmap_over_kernels(implementation):
    x, kernel, g = arrays((2, 5, 6, 3, 18, 3, 3), "float32")
    kernels = jnp.stack([kernel, -2 * kernel, kernel[::-1]])
    got = jax.vmap(lambda k: value_and_gradients(convolution(implementation), x, k, g))(kernels)
    for i, k in enumerate(kernels):
        assert_close([t[i] for t in got], value_and_gradients(plain, x, k, g), 1e-5)


@pytest.mark.parametrize("implementation", ["auto", "split"])
def test_remat_and_scan(implementation):
    x, kernel, _ = arrays((2, 5, 6, 17, 17, 3, 3), "float32")

    def loss(f, k):
        step = jax.checkpoint(lambda carry, _: (jnp.tanh(f(carry, k)), None))
        return (lax.scan(step, x, None, length=2)[0] ** 2).sum()

    got = jax.jit(jax.grad(lambda k: loss(convolution(implementation), k)))(kernel)
    assert_close(got, jax.grad(lambda k: loss(plain, k))(kernel), 1e-5)


def test_eval_shape():
    x = jax.ShapeDtypeStruct((2, 8, 6, 16), jnp.float32)
    kernel = jax.ShapeDtypeStruct((7, 7, 16, 20), jnp.float32)
    assert jax.eval_shape(conv2d, x, kernel).shape == (2, 8, 6, 20)
    grads = jax.eval_shape(jax.grad(lambda *a: conv2d(*a).sum(), argnums=(0, 1)), x, kernel)
    assert [g.shape for g in grads] == [x.shape, kernel.shape]


def test_keeps_bfloat16():
    args = arrays((2, 6, 6, 8, 20, 3, 3), "bfloat16")
    got = value_and_gradients(conv2d, *args)
    assert_close(got, value_and_gradients(plain, *args), 1e-2)


@pytest.mark.parametrize("implementation", ["auto", "split"])
def test_export_with_symbolic_shape(implementation):
    pytest.importorskip("flatbuffers")
    x, kernel, _ = arrays((2, 8, 12, 3, 18, 3, 3), "float32")
    b, h, w = jax.export.symbolic_shape("b, 4*h, 4*w")
    exported = jax.export.export(
        jax.jit(convolution(implementation)), platforms=("cpu", "cuda", "tpu")
    )(jax.ShapeDtypeStruct((b, h, w, 3), x.dtype), kernel)
    again = jax.export.deserialize(exported.serialize())
    assert_close(again.call(x, kernel), plain(x, kernel), 1e-5)


def test_export_of_a_gradient_for_several_platforms():
    x, kernel, g = arrays((2, 8, 12, 3, 18, 3, 3), "float32")
    exported = jax.export.export(
        jax.jit(lambda *a: value_and_gradients(conv2d, *a)), platforms=("cpu", "cuda")
    )(x, kernel, g)
    assert_close(exported.call(x, kernel, g), value_and_gradients(plain, x, kernel, g), 1e-5)


@pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "implementation"),
    [
        ((1, 4, 4, 2), (3, 4, 2, 5), "auto"),
        ((1, 4, 4, 3), (3, 3, 2, 5), "auto"),
        ((4, 4, 2), (3, 3, 2, 5), "auto"),
        ((1, 4, 4, 2), (3, 3, 2, 5), "quick"),
    ],
)
def test_refuses(x_shape, kernel_shape, implementation):
    with pytest.raises(ValueError, match="odd|Ci|none of"):
        conv2d(jnp.ones(x_shape), jnp.ones(kernel_shape), implementation=implementation)
