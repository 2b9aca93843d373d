"""The convolution of pictures of few channels, on one CPU: that of the first layer."""

import jax
import jax.numpy as jnp
from jax import lax

from cmtl_jax.kernels import library

_SIDES = (3, 5, 7, 9)  # of kernels
_CHANNELS = 4  # of x, at most
_FEATURES = 8  # at least: vectors of channels would be empty


def suits(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether the program traced now may take this for such arrays, and gains by it."""
    kh, kw, n_in, n_out = kernel.shape
    sides = kh == kw and kh in _SIDES
    return library.used(x, kernel) and sides and n_in <= _CHANNELS and n_out >= _FEATURES


@jax.custom_vjp
def convolve(x: jax.Array, kernel: jax.Array, bias: jax.Array, size: jax.Array) -> jax.Array:
    """mask(conv(x) + bias): stride 1, zero-padded outside, zero beyond the sizes.

    Args:
        x: float32 [B, H, W, Ci], Ci at most 4.
        kernel: float32 [k, k, Ci, Co], k one of 3, 5, 7, 9.
        bias: float32 [Co].
        size: int32 [B, 2], valid rows and columns of each picture.

    Returns:
        float32 [B, H, W, Co].
    """
    shape = jax.ShapeDtypeStruct((*x.shape[:3], kernel.shape[3]), jnp.float32)
    call = jax.ffi.ffi_call("cmtl_shallow_convolution", shape, vmap_method="sequential")
    return call(x, kernel, bias, size)


def _forward(x, kernel, bias, size):
    return convolve(x, kernel, bias, size), (x, kernel, size)


def _backward(residuals, g):
    x, kernel, size = residuals
    shapes = tuple(
        jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (kernel.shape, kernel.shape[3:])
    )
    call = jax.ffi.ffi_call("cmtl_shallow_convolution_gradients", shapes, vmap_method="sequential")
    kernel_bar, bias_bar = call(x, size, g)
    # Nobody asks for the gradient of a picture while training; XLA then leaves it out.
    rows, columns = (jnp.arange(n)[None] for n in x.shape[1:3])
    inside = (rows < size[:, :1])[:, :, None] & (columns < size[:, 1:])[:, None]
    turned = lax.rev(kernel, (0, 1)).transpose(0, 1, 3, 2)
    x_bar = lax.conv_general_dilated(
        jnp.where(inside[..., None], g, 0), turned, (1, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    return x_bar, kernel_bar, bias_bar, None


convolve.defvjp(_forward, _backward)
