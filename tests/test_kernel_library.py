import functools
import os
import pathlib
import platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import assert_close, needs_kernels
from test_cmtl import RELEASED, random_params

from cmtl_jax.kernels import library
from cmtl_jax.models import registry
from cmtl_jax.parallel import Parallel

ASK = "from cmtl_jax.kernels import library; print(library.why_not())"


def ask(tmp_path, code=ASK, **environment):
    env = {k: v for k, v in os.environ.items() if k not in ("CXX", library.SWITCH)}
    env |= {"PYTHONPATH": os.pathsep.join(sys.path), "XDG_CACHE_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code, *environment.pop("arguments", ())],
        env=env | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def compiler(tmp_path, body):
    script = tmp_path / "compiler"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return str(script)


def test_the_switch(tmp_path):
    assert ask(tmp_path, **{library.SWITCH: "0"}) == f"{library.SWITCH} is 0"
    assert not list(tmp_path.iterdir())


def test_without_a_compiler_the_line_says_what_to_install(tmp_path):
    said = ask(tmp_path, CXX="no-such-compiler")
    assert said == "no C++ compiler (no-such-compiler); install g++ or set CXX"


def test_a_compiler_that_fails_is_quoted(tmp_path):
    said = ask(tmp_path, CXX=compiler(tmp_path, "echo 'x.h:1: error: no vectors' >&2; exit 1"))
    assert said.endswith("cannot compile the kernels: x.h:1: error: no vectors")


def test_a_file_that_is_no_library_is_no_end(tmp_path):
    body = 'while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"'
    assert "nonsense" not in ask(tmp_path, CXX=compiler(tmp_path, body)) != ""


@needs_kernels
def test_compiled_once_for_all(tmp_path):
    assert ask(tmp_path) == ""
    (built,) = tmp_path.glob("cmtl_jax/kernels/*/*.so")
    before = built.stat().st_mtime_ns
    assert ask(tmp_path) == ""
    (built,) = tmp_path.glob("cmtl_jax/kernels/*/*.so")
    assert built.stat().st_mtime_ns == before


@needs_kernels
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86")
@pytest.mark.parametrize("flags", ["-mno-avx512f", "-mno-avx512f -mno-avx"], ids=["8", "4"])
def test_vectors_of_other_processors(tmp_path, flags):
    env = os.environ | {
        "CXX": compiler(tmp_path, f'exec "{library.find_compiler()}" "$@" {flags}'),
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    names = ("fft_convolution", "prelu_pool", "shallow_convolution")
    files = [str(pathlib.Path(__file__).parent / f"test_{name}.py") for name in names]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0 and "skipped" not in run.stdout, run.stdout


def network(model, params, batch):
    """Density, logits, a loss and its gradients."""
    image, size = batch

    def loss(params):
        output = model.apply({"params": params}, image, size)
        return (output.density**2).sum() + (output.group_logits**2).sum(), output

    (value, output), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return output.density, output.group_logits, value, *jax.tree.leaves(gradients)


@needs_kernels
def test_the_cascade_with_and_without_kernels():
    model = registry.build("cmtl", **RELEASED)
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(3, 52, 64, 1)), jnp.float32)
    batch = image, jnp.array([[52, 64], [37, 50], [9, 13]])
    seeds = [random_params(model, seed=seed) for seed in range(3)]
    plain = jax.jit(functools.partial(network, model)).lower(seeds[0], batch).compile()
    with library.in_use():
        lowered = jax.jit(functools.partial(network, model)).lower(seeds[0], batch)
    for target in library._TARGETS:
        assert target in lowered.as_text(), target
    kernels = lowered.compile()
    worst = []
    for params in seeds:
        got, want = kernels(params, batch), plain(params, batch)
        assert_close(got[:3], want[:3], 1e-5)
        worst.append(
            max(
                np.abs(np.subtract(a, b)).max() / max(np.abs(b).max(), 1e-6)
                for a, b in zip(got[3:], want[3:], strict=True)
            )
        )
    # A value that is the largest, or negative, by rounding alone takes its gradient elsewhere; what
    # is wrong shows in every network.
    assert min(worst) <= 5e-5 and max(worst) <= 2e-2


@needs_kernels
@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_programs_of_one_cpu_take_them_and_others_do_not(kind, monkeypatch):
    used = []
    real = library.used
    monkeypatch.setattr(library, "used", lambda *a: used.append(real(*a)) or used[-1])

    def step(x, batch, axis_name=None):
        library.used(x)
        return x + batch.sum(), batch

    for number in (1, 2):
        parallel = Parallel(kind, devices=jax.devices()[:number])
        x = parallel.replicate(np.float32(1))
        parallel.train_step(step)(x, np.ones((2, 3), np.float32))
        # A program of pmap is for one device, however many there are.
        assert set(used) == {number == 1 or kind == "pmap"}
        used.clear()
        parallel.eval_step(lambda x, batch: batch * library.used(x))(x, np.ones((2, 3)))
        assert set(used) == {number == 1}
        used.clear()


CACHED = """
import sys
import jax, jax.numpy as jnp
from cmtl_jax.kernels import fft_convolution, library
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
x, kernel, size = jnp.ones((1, 20, 20, 8)), jnp.ones((5, 5, 8, 8)), jnp.full((1, 2), 20)
with library.in_use():
    y = jax.jit(fft_convolution.convolve)(x, jnp.float32(1), kernel, jnp.zeros(8), size)
print(float(y[0, 9, 9, 0]), sum(e.endswith("/cache_hits") for e in hits) > 0)
"""


@needs_kernels
def test_their_programs_are_kept_on_disk(tmp_path):
    cache = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
    folder = str(tmp_path / "programs")
    said = [ask(cache, CACHED, arguments=(folder,)).split() for _ in range(2)]
    assert [float(number) for number, _ in said] == [pytest.approx(200, rel=1e-5)] * 2
    assert [hit for _, hit in said] == ["False", "True"]
