"""PReLU and 2x2 max pooling in one pass, on one CPU."""

import jax
import jax.numpy as jnp

from cmtl_jax.kernels import library


def suits(x: jax.Array) -> bool:
    """Whether the program traced now may take this for such an array."""
    return library.used(x)


@jax.custom_vjp
def pool(x: jax.Array, slope: jax.Array) -> jax.Array:
    """The largest of each 2x2 window of prelu(x).

    The gradient goes to the largest, in equal parts where several are.

    Args:
        x: float32 [B, H, W, C], H and W even.
        slope: float32 [], of the PReLU.

    Returns:
        float32 [B, H/2, W/2, C].
    """
    b, h, w, c = x.shape
    shape = jax.ShapeDtypeStruct((b, h // 2, w // 2, c), jnp.float32)
    return jax.ffi.ffi_call("cmtl_prelu_pool", shape, vmap_method="sequential")(x, slope)


def _forward(x, slope):
    return pool(x, slope), (x, slope)


def _backward(residuals, g):
    x, slope = residuals
    shapes = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (x.shape, ()))
    call = jax.ffi.ffi_call("cmtl_prelu_pool_gradients", shapes, vmap_method="sequential")
    return tuple(call(x, slope, g))


pool.defvjp(_forward, _backward)
