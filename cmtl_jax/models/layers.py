"""Mask-aware building blocks: what lies outside a picture never changes what lies inside.

A batch holds pictures of different sizes, padded to a common [H, W]. Every picture counts as
zero-padded to the next multiple of 4 (two poolings halve its sides twice); beyond that *extent* the
mask of its resolution is 0 and is applied again after every layer with a bias, so that each layer
sees exactly the zeros that SAME padding would give a picture alone.
"""

from collections.abc import Callable

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn

from cmtl_jax.kernels import fft_convolution, library, prelu_pool, shallow_convolution
from cmtl_jax.models import convolution, transposed_convolution

Initializer = Callable[..., jax.Array]

STRIDE = 4  # input pixels per cell of the coarsest features


def extent(size: jax.Array) -> jax.Array:
    """int32 [B, 2] valid (height, width) -> the same, rounded up to multiples of 4."""
    return -(-size // STRIDE) * STRIDE


def require_whole_cells(image: jax.Array) -> None:
    """
    Raises:
        ValueError: H or W of an image [B, H, W, C] is no multiple of 4.
    """
    if image.shape[1] % STRIDE or image.shape[2] % STRIDE:
        raise ValueError(f"sides must be multiples of {STRIDE}, got {image.shape[1:3]}")


def valid_mask(size: jax.Array, height: int, width: int) -> jax.Array:
    """int32 [B, 2] valid (height, width) -> bool [B, height, width, 1], True inside."""
    rows = jnp.arange(height)[None, :] < size[:, :1]
    columns = jnp.arange(width)[None, :] < size[:, 1:]
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def apply_mask(x: jax.Array, size: jax.Array) -> jax.Array:
    """Zeroes x [B, H, W, C] outside size int32 [B, 2], given in x's own pixels."""
    return jnp.where(valid_mask(size, x.shape[1], x.shape[2]), x, 0)


def at_least_float32(x: jax.Array) -> jax.Array:
    """Results of a bfloat16 computation as float32; float32 and float64 as they are."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@flax.struct.dataclass
class Activated:
    """The result of a PReLU that whoever reads it computes, on the way, where kernels can.

    Attributes:
        x: what the PReLU is of.
        slope: float32 [].
    """

    x: jax.Array
    slope: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.x.shape


Features = jax.Array | Activated


def value(x: Features) -> jax.Array:
    """Features as an array."""
    return prelu(x.x, x.slope) if isinstance(x, Activated) else x


def masked_conv(x: Features, kernel: jax.Array, bias: jax.Array, size: jax.Array) -> jax.Array:
    """Convolution of stride 1 with its bias, by the fastest exact way there is.

    Args:
        x: [B, H, W, Ci].
        kernel: [k, k, Ci, Co]; its type is that of the computation.
        bias: [Co].
        size: int32 [B, 2] in x's pixels.

    Returns:
        [B, H, W, Co], zero-padded outside the picture ("SAME"), 0 outside size.
    """
    read, slope = (x.x, x.slope) if isinstance(x, Activated) else (x, None)
    if fft_convolution.suits(read, kernel):
        return fft_convolution.convolve(read, slope, kernel, bias, size)
    if shallow_convolution.suits(read, kernel):
        return shallow_convolution.convolve(value(x), kernel, bias, size)
    return apply_mask(convolution.conv2d(value(x).astype(kernel.dtype), kernel) + bias, size)


class MaskedConv(nn.Module):
    """Convolution (stride 1, SAME), masked again because its bias leaks into the padding."""

    features: int
    kernel_size: int
    kernel_init: Initializer
    bias_init: Initializer = nn.initializers.zeros
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Features, size: jax.Array) -> jax.Array:
        """x [B, H, W, C], size int32 [B, 2] in x's pixels -> [B, H, W, features]."""
        k = self.kernel_size
        kernel = self.param("kernel", self.kernel_init, (k, k, x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        return masked_conv(x, kernel.astype(self.dtype), bias.astype(self.dtype), size)


class MaskedConvTranspose(nn.Module):
    """Fractionally strided convolution: 4x4, stride 2, twice the resolution (paper, 3.3)."""

    features: int
    kernel_init: Initializer
    bias_init: Initializer = nn.initializers.zeros
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Features, size: jax.Array) -> jax.Array:
        """x [B, H, W, C], size int32 [B, 2] in the output's pixels -> [B, 2H, 2W, features]."""
        conv = _ConvTranspose(
            self.features, self.kernel_init, self.bias_init, self.dtype, name="conv"
        )
        return apply_mask(conv(value(x)), size)


class _ConvTranspose(nn.Module):
    features: int
    kernel_init: Initializer
    bias_init: Initializer
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*transposed_convolution.SIDES, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
        bias = self.param("bias", self.bias_init, (self.features,)).astype(self.dtype)
        return transposed_convolution.conv_transpose2d(x.astype(self.dtype), kernel) + bias


def prelu(x: jax.Array, slope: jax.Array) -> jax.Array:
    """x where it is at least 0, else slope x."""
    return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)


class PReLU(nn.Module):
    """Parametric ReLU with one slope a layer that starts at 0.25, as in the authors' framework.

    With `lazy` the result may be one that is computed by those who read it.
    """

    lazy: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> Features:
        slope = self.param("slope", nn.initializers.constant(0.25), ())
        if self.lazy and library.used(x, slope):
            return Activated(x, slope)
        return prelu(x, slope)


def max_pool(x: Features) -> jax.Array:
    """2x2 max pooling, stride 2: [B, H, W, C] -> [B, H/2, W/2, C]; H and W are even."""
    if isinstance(x, Activated) and prelu_pool.suits(x.x):
        return prelu_pool.pool(x.x, x.slope)
    return _max_pool(value(x))


@jax.custom_vjp
def _max_pool(x: jax.Array) -> jax.Array:
    """The same of an array.

    The gradient goes to the largest of the four, in equal parts where several are. It is a
    comparison, which XLA runs many times faster on a CPU than the select-and-scatter of a pooling
    window, and counts the equal ones without a reduction.
    """
    return _windows(x).max(axis=(2, 4))


def _windows(x: jax.Array) -> jax.Array:
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c)


def _max_pool_fwd(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = _max_pool(x)
    return y, (x, y)


def _max_pool_bwd(residuals: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array]:
    x, y = residuals
    windows = _windows(x)
    equal = sum((windows[:, :, i, :, j] == y).astype(g.dtype) for i in (0, 1) for j in (0, 1))
    largest = windows == y[:, :, None, :, None]
    part = jnp.where(largest, (g / equal)[:, :, None, :, None], 0)
    return (part.reshape(x.shape),)


_max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)


def adaptive_max_pool(x: jax.Array, size: jax.Array, bins: int) -> jax.Array:
    """Maximum of each cell of a bins x bins grid laid over each picture's valid part.

    Bin i of n rows spans floor(i n / bins) .. ceil((i + 1) n / bins), as in the authors' framework,
    also where n < bins (cells then repeat). Padding is ignored.

    Args:
        x: [B, H, W, C].
        size: int32 [B, 2], valid rows and columns of x, at least 1.
        bins: cells a side.

    Returns:
        [B, bins, bins, C].
    """
    for axis in (1, 2):
        x = _adaptive_max(x, size[:, axis - 1], bins, axis)
    return x


def _adaptive_max(x: jax.Array, valid: jax.Array, bins: int, axis: int) -> jax.Array:
    i = jnp.arange(bins)
    start = i[None] * valid[:, None] // bins  # [B, bins]
    stop = -(-(i[None] + 1) * valid[:, None] // bins)
    longest = -(-x.shape[axis] // bins) + 1  # no bin spans more
    take = jax.vmap(lambda a, index: jnp.take(a, index, axis=axis - 1))

    def enlarge(offset, result):
        # A bin shorter than the longest sees its own last row again.
        return jnp.maximum(result, take(x, jnp.minimum(start + offset, stop - 1)))

    result = take(x, start)
    if not isinstance(longest, int):  # a symbolic shape, as of an export
        return jax.lax.fori_loop(1, longest, enlarge, result)
    for offset in range(1, longest):
        result = enlarge(offset, result)
    return result


def dropout(x: jax.Array, keys: jax.Array | None, rate: float) -> jax.Array:
    """Inverted dropout with one key an example, so that it does not depend on the batch's layout.

    Args:
        x: [B, D].
        keys: [B] PRNG keys; None switches dropout off.
        rate: fraction of the values set to zero.
    """
    if keys is None or rate == 0:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0)
