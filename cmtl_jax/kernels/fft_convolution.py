"""A layer's convolution by the Fourier transform of tiles, on one CPU.

A direct convolution of 9x9 multiplies 81 times for each pair of channels and pixel; here it is some
20 times, transforms included. One of 3x3 gains little, but is one pass, too. The method is told in
`fft_convolution.h`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from cmtl_jax.kernels import library

_SIDES = (3, 5, 7, 9)  # of kernels
_CHANNELS = 8  # at least, in and out: vectors of channels would be empty
_AREA = 144  # pixels of a picture, at least: smaller ones leave tiles empty


def suits(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether the program traced now may take this for such arrays, and gains by it."""
    kh, kw, *channels = kernel.shape
    return (
        library.used(x, kernel)
        and kh == kw
        and kh in _SIDES
        and min(channels) >= _CHANNELS
        and x.shape[1] * x.shape[2] >= _AREA
    )


@jax.custom_vjp
def convolve(
    x: jax.Array, slope: jax.Array | None, kernel: jax.Array, bias: jax.Array, size: jax.Array
) -> jax.Array:
    """mask(conv(prelu(x)) + bias): stride 1, zero-padded outside, zero beyond the sizes.

    Args:
        x: float32 [B, H, W, Ci].
        slope: float32 [], of the PReLU; None where there is none.
        kernel: float32 [k, k, Ci, Co], k odd and at most 15.
        bias: float32 [Co].
        size: int32 [B, 2], valid rows and columns of each picture.

    Returns:
        float32 [B, H, W, Co].
    """
    shape = jax.ShapeDtypeStruct((*x.shape[:3], kernel.shape[3]), jnp.float32)
    call = jax.ffi.ffi_call("cmtl_fft_convolution", shape, vmap_method="sequential")
    return call(x, _number(slope), kernel, bias, size, activate=slope is not None)


def _forward(x, slope, kernel, bias, size):
    return convolve(x, slope, kernel, bias, size), (x, slope, kernel, size)


def _backward(residuals, g):
    x, slope, kernel, size = residuals
    turned = lax.rev(kernel, (0, 1)).transpose(0, 1, 3, 2)
    shapes = tuple(
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in (x.shape, (), kernel.shape, kernel.shape[3:])
    )
    call = jax.ffi.ffi_call("cmtl_fft_convolution_gradients", shapes, vmap_method="sequential")
    active = slope is not None
    x_bar, slope_bar, *others = call(x, _number(slope), turned, size, g, activate=active)
    return x_bar, slope_bar if active else None, *others, None


def _number(slope: jax.Array | None) -> jax.Array:
    return jnp.float32(1) if slope is None else slope


convolve.defvjp(_forward, _backward)
