"""Convolution of stride 1 by the Fourier transform of tiles, and its gradients, on one CPU.

A direct convolution of 9x9 multiplies 81 times for each pair of channels and pixel; here it is some
20 times, transforms included. The method is told in `fft_convolution.cc`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from cmtl_jax.kernels import library

_SIDES = (5, 7, 9)  # of kernels; transforms of smaller ones cost as much as the convolution
_CHANNELS = 8  # at least, in and out: vectors of channels would be empty
_AREA = 144  # pixels of a picture, at least: smaller ones leave tiles empty


def suits(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether the program traced now may take this for such arrays, and gains by it."""
    if not library.used() or any(not isinstance(n, int) for n in x.shape):
        return False
    kh, kw, *channels = kernel.shape
    return (
        x.dtype == kernel.dtype == jnp.float32
        and kh == kw
        and kh in _SIDES
        and min(channels) >= _CHANNELS
        and x.shape[0] > 0
        and x.shape[1] * x.shape[2] >= _AREA
    )


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution that keeps the picture's size, zero-padded outside.

    Args:
        x: float32 [B, H, W, Ci].
        kernel: float32 [k, k, Ci, Co], k odd and at most 15.

    Returns:
        float32 [B, H, W, Co].
    """
    shape = jax.ShapeDtypeStruct((*x.shape[:3], kernel.shape[3]), jnp.float32)
    call = jax.ffi.ffi_call("cmtl_fft_convolution", shape, vmap_method="sequential")
    return call(x, kernel)


def gradients(x: jax.Array, kernel: jax.Array, y_bar: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gradients of the convolution of x by the kernel.

    Args:
        x: float32 [B, H, W, Ci].
        kernel: float32 [k, k, Ci, Co], k odd and at most 15.
        y_bar: float32 [B, H, W, Co], the gradient of its result.

    Returns:
        Those of x and of the kernel.
    """
    turned = lax.rev(kernel, (0, 1)).transpose(0, 1, 3, 2)
    shapes = tuple(jax.ShapeDtypeStruct(a.shape, jnp.float32) for a in (x, kernel))
    call = jax.ffi.ffi_call("cmtl_fft_convolution_gradients", shapes, vmap_method="sequential")
    return call(x, turned, y_bar)
