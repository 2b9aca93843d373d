"""The convolution of oneDNN, which jaxlib holds for x86 CPUs, called by its name.

XLA takes it by itself for no convolution, and its own kernel gradients are several times slower
than oneDNN's convolutions. A program that calls it cannot be kept in JAX's compilation cache, is no
part of an export, and is not split over devices by XLA; hence `in_use`, for training steps alone.
"""

import contextlib
import contextvars
import functools
import json
import logging
import os
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TARGET = "__onednn$convolution"
SWITCH = "CMTL_JAX_ONEDNN"  # environment: 0 leaves oneDNN alone

_KNOWN = ((0, 10), (0, 11), (0, 12))  # versions of JAX that this call was tried with
_in_use = contextvars.ContextVar("onednn_in_use", default=False)


@contextlib.contextmanager
def in_use(wanted: bool = True) -> Iterator[None]:
    """Programs traced in here for one CPU take oneDNN's convolutions for what is differentiated.

    They are not written to JAX's compilation cache, which cannot hold them.
    """
    wanted = wanted and available()
    token = _in_use.set(wanted)
    try:
        with _no_cache() if wanted else contextlib.nullcontext():
            yield
    finally:
        _in_use.reset(token)


def suits(*arrays: jax.Array) -> bool:
    """Whether the program traced now may call oneDNN for these arrays."""
    return _in_use.get() and all(
        a.dtype == jnp.float32 and all(isinstance(n, int) and n > 0 for n in a.shape)
        for a in arrays
    )


@functools.cache
def available() -> bool:
    """Whether this jaxlib has oneDNN's convolution and it gives what XLA's gives; tried once."""
    if os.environ.get(SWITCH, "1") == "0" or jax.__version_info__[:2] not in _KNOWN:
        return False
    x = np.random.default_rng(0).standard_normal((2, 6, 5, 16)).astype(np.float32)
    kernel = np.random.default_rng(1).standard_normal((3, 1, 16, 32)).astype(np.float32)
    try:
        with (
            jax.default_device(jax.local_devices(backend="cpu")[0]),
            jax.ensure_compile_time_eval(),
            _no_cache(),
        ):
            got = jax.jit(lambda x, kernel: convolve(x, kernel))(x, kernel)
            want = jax.jit(
                lambda x, kernel: lax.conv_general_dilated(
                    x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
            )(x, kernel)
            return bool(np.allclose(got, want, rtol=1e-4, atol=1e-4))
    except Exception as error:  # whatever a jaxlib without it says
        logging.debug("oneDNN's convolution is not used: %s", error)
        return False


def convolve(x: jax.Array, kernel: jax.Array, pads: tuple[int, int] = (0, 0)) -> jax.Array:
    """Convolution of stride 1, on CPU alone.

    Args:
        x: float32 [B, H, W, Ci].
        kernel: float32 [kh, kw, Ci, Co].
        pads: zeros above and below, left and right.

    Returns:
        float32 [B, H + 2 pads[0] - kh + 1, W + 2 pads[1] - kw + 1, Co].
    """
    b, h, w, _ = x.shape
    kh, kw, _, n_out = kernel.shape
    shape = (b, h + 2 * pads[0] - kh + 1, w + 2 * pads[1] - kw + 1, n_out)
    call = jax.ffi.ffi_call(
        TARGET,
        jax.ShapeDtypeStruct(shape, jnp.float32),
        vmap_method="sequential",
        custom_call_api_version=2,
        legacy_backend_config=json.dumps(_description(kernel.shape, pads)),
    )
    return call(x, kernel)


def _description(kernel: tuple[int, ...], pads: tuple[int, int]) -> dict:
    """XLA's OneDnnConvolutionConfig, of one call."""
    pictures = {"batch_dim": "0", "feature_dim": "3", "spatial_dims": ["1", "2"]}
    filters = {
        "input_feature_dim": "2", "output_feature_dim": "3", "shape": [str(n) for n in kernel],
        "spatial_dims": ["0", "1"],
    }  # fmt: skip
    zeros = [str(pad) for pad in pads]
    window = {
        "pad_left": zeros, "pad_right": zeros, "size": [], "strides": ["1", "1"],
        "window_dilations": ["1", "1"],
    }  # fmt: skip
    return {
        "onednn_conv_config": {
            "dims": "4",
            "feature_groups": "1",
            "input": {"data": pictures, "dims": "4"},
            "kernel": {"dims": "4", "filter": filters},
            "output": {"data": pictures, "dims": "4"},
            "window": window,
            "optimization_config": {
                "bias_broadcast": False, "user_scratchpad": False, "weights_prepacked": False,
            },
        }
    }  # fmt: skip


@contextlib.contextmanager
def _no_cache() -> Iterator[None]:
    """Programs compiled in here are not worth keeping; JAX looks at its other switch only once."""
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float("inf"))
    try:
        yield
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before)
