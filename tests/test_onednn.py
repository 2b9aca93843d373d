import logging
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cmtl_jax.kernels import library
from cmtl_jax.models import convolution, onednn
from cmtl_jax.models.convolution import conv2d
from cmtl_jax.parallel import Parallel

needs_it = pytest.mark.skipif(
    not onednn.available(), reason="this jaxlib has no convolution of oneDNN"
)
# (B, H, W, Ci, Co, kh, kw)
SHAPES = [
    (2, 9, 11, 1, 16, 9, 9),
    (2, 37, 13, 16, 32, 7, 7),
    (1, 70, 20, 32, 20, 7, 7),
    (3, 5, 6, 20, 40, 5, 5),
    (2, 3, 2, 3, 18, 9, 5),
]


def arrays(shape, seed=0):
    b, h, w, n_in, n_out, kh, kw = shape
    rng = np.random.default_rng(seed)
    return tuple(
        jnp.asarray(rng.standard_normal(s), jnp.float32)
        for s in [(b, h, w, n_in), (kh, kw, n_in, n_out), (b, h, w, n_out)]
    )


def plain(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def derivatives(f, x, kernel, cotangent):
    y, vjp = jax.vjp(f, x, kernel)
    return (y, *vjp(cotangent))


def assert_close(got, want, tolerance=1e-5):
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert np.linalg.norm(np.subtract(a, b)) <= tolerance * np.linalg.norm(b)


@needs_it
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_plain_convolution(shape):
    args = arrays(shape)
    with onednn.in_use():
        program = jax.jit(lambda *a: derivatives(conv2d, *a)).lower(*args).compile()
    assert onednn.TARGET in program.as_text()
    assert_close(program(*args), derivatives(plain, *args))


@needs_it
def test_pads():
    x, kernel, _ = arrays((2, 9, 7, 16, 20, 5, 3))
    got = jax.jit(onednn.convolve, static_argnums=2)(x, kernel, (2, 0))
    want = lax.conv_general_dilated(
        x, kernel, (1, 1), ((2, 2), (0, 0)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert_close([got], [want])


@needs_it
def test_only_what_is_differentiated_in_the_block_takes_it():
    x, kernel, _ = arrays(SHAPES[1])

    def calls(function):
        return onednn.TARGET in jax.jit(function).lower(x, kernel).as_text()

    assert not calls(lambda x, kernel: jax.grad(lambda k: conv2d(x, k).sum())(kernel))
    with onednn.in_use():
        assert calls(lambda x, kernel: jax.grad(lambda k: conv2d(x, k).sum())(kernel))
        assert not calls(lambda x, kernel: conv2d(x, kernel))
        with onednn.in_use(False):
            assert not onednn.suits(x, kernel)
        assert onednn.suits(x, kernel) and not onednn.suits(x.astype(jnp.bfloat16))
    assert not onednn.suits(x, kernel)


@needs_it
def test_a_batch_of_kernels():
    x, kernel, g = arrays(SHAPES[3])
    kernels = jnp.stack([kernel, -2 * kernel])
    with onednn.in_use():
        got = jax.jit(jax.vmap(lambda k: derivatives(conv2d, x, k, g)))(kernels)
    for i, k in enumerate(kernels):
        assert_close([t[i] for t in got], derivatives(plain, x, k, g))


@needs_it
@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_a_training_step_without_kernels_takes_it_on_one_cpu(kind, monkeypatch):
    monkeypatch.setattr(library, "available", lambda: False)
    calls = []
    real = onednn.convolve
    monkeypatch.setattr(onednn, "convolve", lambda *a, **k: calls.append(a) or real(*a, **k))
    x, kernel, g = (np.asarray(a) for a in arrays(SHAPES[3]))

    def step(kernel, batch, axis_name=None):
        x, g = batch
        return kernel, jax.grad(lambda k: (conv2d(x, k) * g).sum())(kernel)

    parallel = Parallel(kind, devices=jax.devices()[:1])
    _, got = parallel.train_step(step)(parallel.replicate(kernel), (x, g))
    assert calls
    assert_close([got], [derivatives(plain, x, kernel, g)[2]])


CACHED = """
import sys, warnings
warnings.simplefilter("error")
import jax, jax.numpy as jnp
from cmtl_jax.models import onednn
from cmtl_jax.models.convolution import conv2d
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
with onednn.in_use():
    jax.block_until_ready(jax.jit(jax.grad(lambda x, k: conv2d(x, k).sum(), 1))(
        jnp.ones((1, 8, 8, 16)), jnp.ones((3, 3, 16, 16))))
jax.block_until_ready(jax.jit(lambda x: jnp.cos(x) * 3)(jnp.ones(7)))
"""


@needs_it
def test_its_programs_are_not_written_to_the_cache(tmp_path):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", CACHED, str(tmp_path)],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.glob("jit__lambda-*"))
    (after,) = {jax.config.jax_persistent_cache_min_compile_time_secs}
    assert after < 1e6


@pytest.mark.parametrize("why", ["switch", "version", "broken"])
def test_goes_without_it(why, monkeypatch, caplog):
    if why == "switch":
        monkeypatch.setenv(onednn.SWITCH, "0")
    elif why == "version":
        monkeypatch.setattr(jax, "__version_info__", (0, 99, 0))
    else:
        monkeypatch.setattr(onednn, "TARGET", "__onednn$no_such_thing")
    onednn.available.cache_clear()
    try:
        with caplog.at_level(logging.DEBUG):
            assert not onednn.available()
        assert ("not used" in caplog.text) == (why == "broken")
        args = arrays(SHAPES[3])
        with onednn.in_use():
            assert not onednn.suits(*args)
            assert_close(derivatives(conv2d, *args), derivatives(plain, *args))
    finally:
        monkeypatch.undo()
        onednn.available.cache_clear()


@pytest.mark.parametrize("shape", SHAPES)
def test_strips_without_it(shape):
    args = arrays(shape)
    got = derivatives(lambda x, k: conv2d(x, k, implementation="strips"), *args)
    assert_close(got, derivatives(plain, *args))


def test_strips_are_as_many_as_needed(monkeypatch):
    monkeypatch.setattr(convolution, "_STRIP", 4)
    args = arrays((2, 10, 6, 3, 4, 3, 5))
    got = derivatives(lambda x, k: conv2d(x, k, implementation="strips"), *args)
    assert_close(got, derivatives(plain, *args))
