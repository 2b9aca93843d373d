"""Stride-1 convolution that is fast on CPU as well.

Two things are slow in XLA's CPU convolution, and done another way there. The forward pass of a
picture of one channel: four neighbouring pixels are taken as channels. And the gradient of the
kernel, which becomes several times slower once that of several examples has more than 16 output
channels: of large pictures it is a matrix product of shifted copies, a few rows at a time, else it
is taken in chunks of channels or example by example. Every implementation computes the same sums,
in another order.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from cmtl_jax.models import onednn

# Measured with jax 0.10 and 0.12: as a kernel gradient, XLA's CPU convolution of several examples
# is efficient up to 16 output channels, and that of a single example above 16.
_CHUNK = 16
# It slows down with the number of examples as well, so they are taken in groups; for few examples
# or small pictures one example at a time is faster than chunks of channels.
_GROUP = 8
_SMALL_GROUP = 4
_SMALL_AREA = 128 * 128
_ROWS = 8  # of a picture, in one product of shifted copies: they stay in the cache
_STRIP = 32  # rows of a picture, at most, in one convolution of columns by a strip
_VECTOR = 16  # channels that oneDNN computes at once
_PHASES = 4  # neighbouring pixels of a row that are taken as channels of a picture of few channels


def _pads(size: tuple[int, int]) -> list[tuple[int, int]]:
    return [(k // 2, k // 2) for k in size]


def _half(kernel: jax.Array) -> tuple[int, int]:
    return kernel.shape[0] // 2, kernel.shape[1] // 2


def _plain(x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding=_pads(kernel.shape[:2]),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def _polyphase(x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike) -> jax.Array:
    """The plain convolution with the pixels of a row in groups of 4, as channels.

    Pixel 4j + p of the output sees the groups from j on: its kernel starts p pixels later.
    """
    b, h, w, n_in = x.shape
    kh, kw, _, n_out = kernel.shape
    groups = -(-(kw + _PHASES - 1) // _PHASES)
    around = groups * _PHASES - _PHASES - kw // 2
    padded = jnp.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, around), (0, 0)))
    padded = padded.reshape(b, h + kh - 1, w // _PHASES + groups - 1, _PHASES * n_in)
    phases = [
        jnp.pad(kernel, ((0, 0), (p, groups * _PHASES - kw - p), (0, 0), (0, 0)))
        for p in range(_PHASES)
    ]
    weights = jnp.stack(phases, axis=3).reshape(kh, groups, _PHASES * n_in, _PHASES * n_out)
    out = lax.conv_general_dilated(
        padded,
        weights,
        window_strides=(1, 1),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )
    return out.reshape(b, h, w, n_out)


def _forward(x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike) -> jax.Array:
    """The plain convolution on accelerators, the fastest exact one measured on CPU."""
    known = all(isinstance(n, int) for n in x.shape)
    if not known or min(x.shape) == 0 or x.shape[3] > 1 or x.shape[2] % _PHASES:
        return _plain(x, kernel, precision)
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_polyphase, precision=precision),
        default=functools.partial(_plain, precision=precision),
    )


def _correlate(
    x: jax.Array, g: jax.Array, size: tuple[int, int], precision: lax.PrecisionLike
) -> jax.Array:
    """Kernel gradient [kh, kw, Ci, Co] as one convolution of ``x`` by ``g``."""
    return lax.conv_general_dilated(
        x,
        g,
        window_strides=(1, 1),
        padding=_pads(size),
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        precision=precision,
    )


def _correlate_exchanged(
    x: jax.Array, g: jax.Array, size: tuple[int, int], precision: lax.PrecisionLike
) -> jax.Array:
    """The same gradient with ``g`` as the picture and ``x`` as the kernel: it comes out flipped."""
    flipped = lax.conv_general_dilated(
        g,
        x,
        window_strides=(1, 1),
        padding=_pads(size),
        dimension_numbers=("CHWN", "IHWO", "HWCN"),
        precision=precision,
    )
    return lax.rev(flipped, (0, 1))


def _split(
    x: jax.Array, g: jax.Array, size: tuple[int, int], precision: lax.PrecisionLike
) -> jax.Array:
    """Kernel gradient in chunks of at most 16 channels of one of the two tensors.

    The time goes into gathering patches of the other tensor, once per chunk; so the tensor to cut
    is the one that makes chunks times the other's channels smaller.
    """
    n_in, n_out = x.shape[3], g.shape[3]
    if -(-n_in // _CHUNK) * n_out < -(-n_out // _CHUNK) * n_in:
        parts = [
            _correlate_exchanged(x[..., i : i + _CHUNK], g, size, precision)
            for i in range(0, n_in, _CHUNK)
        ]
        return jnp.concatenate(parts, axis=2)
    parts = [
        _correlate(x, g[..., i : i + _CHUNK], size, precision) for i in range(0, n_out, _CHUNK)
    ]
    return jnp.concatenate(parts, axis=3)


def _single(
    x: jax.Array, g: jax.Array, size: tuple[int, int], precision: lax.PrecisionLike
) -> jax.Array:
    """Kernel gradient one example at a time, the tensor with more channels as the kernel."""
    correlate = _correlate if g.shape[3] >= x.shape[3] else _correlate_exchanged
    # Not a lax.map: XLA's CPU convolution is many times slower inside a loop.
    return sum(
        (correlate(x[i : i + 1], g[i : i + 1], size, precision) for i in range(1, x.shape[0])),
        start=correlate(x[:1], g[:1], size, precision),
    )


def _shifted(
    x: jax.Array, g: jax.Array, size: tuple[int, int], precision: lax.PrecisionLike
) -> jax.Array:
    """Kernel gradient as one matrix product: all columns of the kernel by all its rows.

    The tensor with more channels is shifted by columns, the other by rows.
    """
    if size[1] * x.shape[3] >= size[0] * g.shape[3]:
        return _columns_by_lines(x, g, size, precision)
    flipped = _columns_by_lines(g, x, size, precision)
    return lax.rev(flipped, (0, 1)).transpose(0, 1, 3, 2)


def _columns_by_lines(
    x: jax.Array, g: jax.Array, size: tuple[int, int], precision: lax.PrecisionLike
) -> jax.Array:
    """Copies of ``x``, one for each column of the kernel, by copies of ``g``, one for each row.

    Args:
        x: [B, H, W, Ci].
        g: [B, H, W, Co].
        size: of the kernel.
        precision: of the product.

    Returns:
        [kh, kw, Ci, Co].
    """
    kh, kw = size
    b, h, w, n_in = x.shape
    n_out = g.shape[3]
    rows = math.gcd(_ROWS, h)
    x = jnp.pad(x, ((0, 0), (0, 0), (kw // 2, kw // 2), (0, 0)))
    g = jnp.pad(g, ((0, 0), (kh // 2, kh // 2), (0, 0), (0, 0)))

    def product(strip: jax.Array | int) -> jax.Array:
        example, top = strip // (h // rows), strip % (h // rows) * rows
        x_rows = lax.dynamic_slice(x, (example, top, 0, 0), (1, rows, w + kw - 1, n_in))[0]
        g_rows = lax.dynamic_slice(g, (example, top, 0, 0), (1, rows + kh - 1, w, n_out))[0]
        columns = jnp.concatenate([x_rows[:, j : j + w] for j in range(kw)], axis=-1)
        lines = jnp.concatenate([g_rows[kh - 1 - i :][:rows] for i in range(kh)], axis=-1)
        columns = columns.reshape(rows * w, kw * n_in)
        lines = lines.reshape(rows * w, kh * n_out)
        # XLA's CPU product is twice as fast with the wider of the two on the right.
        return lax.dot_general(lines, columns, (((0,), (0,)), ((), ())), precision=precision)

    strips = jnp.arange(1, b * (h // rows))
    total, _ = lax.scan(lambda sum_, strip: (sum_ + product(strip), None), product(0), strips)
    return total.reshape(kh, n_out, kw, n_in).transpose(0, 2, 3, 1)


def _strips(
    x: jax.Array, g: jax.Array, size: tuple[int, int], precision: lax.PrecisionLike
) -> jax.Array:
    """Kernel gradient as convolutions over the rows, with the pixels of a row as channels.

    The tensor with fewer channels is shifted by columns, the other is the kernel.
    """
    if x.shape[3] <= g.shape[3]:
        return _columns_by_strips(x, g, size, precision)
    flipped = _columns_by_strips(g, x, size, precision)
    return lax.rev(flipped, (0, 1)).transpose(0, 1, 3, 2)


def _columns_by_strips(
    x: jax.Array, g: jax.Array, size: tuple[int, int], precision: lax.PrecisionLike
) -> jax.Array:
    """Copies of ``x``, one for each column of the kernel, convolved by strips of ``g``.

    What a convolution sees as pictures are two halves of the channels of ``x``, one for each core
    at least; as their rows, the rows; as their columns, the columns of the kernel and the channels
    of a half; as their channels, the pixels of a row.

    Args:
        x: [B, H, W, Ci].
        g: [B, H, W, Co].
        size: of the kernel.
        precision: of the convolutions.

    Returns:
        [kh, kw, Ci, Co].
    """
    kh, kw = size
    b, h, w, n_in = x.shape
    n_out = g.shape[3]
    halves = 2 if n_in % 2 == 0 else 1
    half = n_in // halves
    strips = -(-h // _STRIP)
    rows = -(-h // strips)
    below = strips * rows - h
    out = -(-n_out // _VECTOR) * _VECTOR
    g = jnp.pad(g, ((0, 0), (0, below), (0, 0), (0, out - n_out)))
    x = jnp.pad(x, ((0, 0), (kh // 2, kh // 2 + below), (kw // 2, kw // 2), (0, 0)))
    x = x.reshape(*x.shape[:3], halves, half).transpose(0, 3, 1, 4, 2)

    def add(carry: tuple[jax.Array, jax.Array], number: jax.Array):
        total, columns = carry
        example, top = number // strips, number % strips * rows
        # Written one after the other: joined at once, XLA would pick them pixel by pixel.
        for j in range(kw):
            start, shape = (example, 0, top, 0, j), (1, halves, rows + kh - 1, half, w)
            column = lax.dynamic_slice(x, start, shape)[0]
            columns = lax.dynamic_update_slice(columns, column, (0, 0, j * half, 0))
        strip = lax.dynamic_slice(g, (example, top, 0, 0), (1, rows, w, out))
        strip = strip.reshape(rows, 1, w, out)
        if onednn.suits(columns, strip):
            part = onednn.convolve(columns, strip)
        else:
            part = lax.conv_general_dilated(
                columns,
                strip,
                window_strides=(1, 1),
                padding="VALID",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision=precision,
            )
        return (total + part, columns), None

    start = (
        _zeros_like(x, (halves, kh, kw * half, out)),
        _zeros_like(x, (halves, rows + kh - 1, kw * half, w)),
    )
    (total, _), _ = lax.scan(add, start, jnp.arange(b * strips))
    total = total[..., :n_out].reshape(halves, kh, kw, half, n_out)
    return total.transpose(1, 2, 0, 3, 4).reshape(kh, kw, n_in, n_out)


def _zeros_like(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Zeros that vary over the same axes of a shard_map as x does."""
    return jnp.zeros(shape, x.dtype) + 0 * x.ravel()[0]


def _shifted_is_faster(x: jax.Array, g: jax.Array, size: tuple[int, int]) -> bool:
    large = x.shape[1] * x.shape[2] >= _SMALL_AREA
    few = x.shape[0] <= _SMALL_GROUP
    narrow = min(x.shape[3], g.shape[3]) < _CHUNK and size[1] * x.shape[3] < size[0] * g.shape[3]
    return large and (few or not narrow)


def _grouped(
    x: jax.Array, g: jax.Array, size: tuple[int, int], precision: lax.PrecisionLike
) -> jax.Array:
    """Kernel gradient on CPU by shape.

    ``_shifted`` for large pictures, else ``_split`` in groups of examples, and ``_single`` for a
    small group.
    """
    if _shifted_is_faster(x, g, size):
        return _shifted(x, g, size, precision)
    total = None
    for i in range(0, x.shape[0], _GROUP):
        x_part, g_part = x[i : i + _GROUP], g[i : i + _GROUP]
        small = x_part.shape[0] <= _SMALL_GROUP or x.shape[1] * x.shape[2] <= _SMALL_AREA
        wide = max(x.shape[3], g.shape[3]) > _CHUNK
        part = (_single if small and wide else _split)(x_part, g_part, size, precision)
        total = part if total is None else total + part
    return total


def _auto(
    x: jax.Array, g: jax.Array, size: tuple[int, int], precision: lax.PrecisionLike
) -> jax.Array:
    """The plain gradient on accelerators, the fastest exact one measured on CPU."""
    if onednn.suits(x, g):
        return _strips(x, g, size, precision)
    symbolic = not all(isinstance(n, int) for n in x.shape + g.shape)
    if symbolic or min(x.shape) == 0:
        return _correlate(x, g, size, precision)
    # platform_dependent decides when the program is lowered for its device, so the choice is also
    # right for a CPU program on a machine with a GPU, and for an export to several platforms.
    return lax.platform_dependent(
        x,
        g,
        cpu=functools.partial(_grouped, size=size, precision=precision),
        default=functools.partial(_correlate, size=size, precision=precision),
    )


_KERNEL_GRADIENTS: dict[str, Callable[..., jax.Array]] = {
    "auto": _auto,
    "plain": _correlate,
    "split": _split,
    "single": _single,
    "shifted": _shifted,
    "strips": _strips,
    "grouped": _grouped,
}
IMPLEMENTATIONS = tuple(_KERNEL_GRADIENTS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv2d(
    x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike, implementation: str
) -> jax.Array:
    return _forward(x, kernel, precision)


def _conv2d_fwd(x, kernel, precision, implementation):
    if onednn.suits(x, kernel) and implementation == "auto":
        return onednn.convolve(x, kernel, _half(kernel)), (x, kernel)
    return _forward(x, kernel, precision), (x, kernel)


def _conv2d_bwd(precision, implementation, residuals, g):
    x, kernel = residuals
    if onednn.suits(g, kernel) and implementation == "auto":
        turned = lax.rev(kernel, (0, 1)).transpose(0, 1, 3, 2)
        x_bar = onednn.convolve(g, turned, _half(kernel))
    else:
        (x_bar,) = jax.linear_transpose(lambda v: _plain(v, kernel, precision), x)(g)
    kernel_bar = _KERNEL_GRADIENTS[implementation](x, g, kernel.shape[:2], precision)
    return x_bar, kernel_bar


_conv2d.defvjp(_conv2d_fwd, _conv2d_bwd)


def _varying_axes(array: jax.Array) -> frozenset:
    """The axes of an enclosing shard_map over which the array differs; jax renamed the field."""
    kind = jax.typeof(array)
    return getattr(getattr(kind, "manual_axis_type", kind), "varying", frozenset())


def _vary_alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Arrays that vary over the same axes of a shard_map, so that gradients are summed there.

    The plain convolution does this by itself: a replicated kernel meets a sharded picture, and the
    kernel's gradient is summed over the devices. A custom rule has to say it.
    """
    varying = [_varying_axes(a) for a in arrays]
    axes = frozenset().union(*varying)
    out = []
    for array, own in zip(arrays, varying, strict=True):
        missing = tuple(sorted(axes - own))
        out.append(lax.pcast(array, missing, to="varying") if missing else array)
    return tuple(out)


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    *,
    precision: lax.PrecisionLike = None,
    implementation: str = "auto",
) -> jax.Array:
    """Convolution of stride 1 that keeps the picture's size, with a kernel gradient fast on CPU.

    Args:
        x: pictures [B, H, W, Ci].
        kernel: weights [kh, kw, Ci, Co], kh and kw odd; same dtype as ``x``.
        precision: as in ``jax.lax.conv_general_dilated``; used for the gradients as well.
        implementation: how the kernel gradient is computed. ``"plain"``: XLA's own;
            ``"split"``: at most 16 channels at a time; ``"single"``: one example at a time;
            ``"shifted"``: a product of shifted copies, a few rows at a time; ``"grouped"``:
            shifted, split or single by shape, the latter in groups of 8 examples; ``"auto"``:
            grouped on CPU, plain on GPU and TPU and for symbolic shapes. The shape must be known
            for all but plain and auto, and hold at least one pixel.

    Returns:
        [B, H, W, Co], zero-padded outside the picture ("SAME").

    Raises:
        ValueError: an even kernel side, channels that do not fit, or an unknown implementation.

    Reverse-mode derivatives of first order only: ``jax.jvp`` is refused.
    """
    if implementation not in _KERNEL_GRADIENTS:
        raise ValueError(f"implementation {implementation!r} is none of {IMPLEMENTATIONS}")
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[2]:
        raise ValueError(f"no [B, H, W, Ci] and [kh, kw, Ci, Co]: {x.shape} and {kernel.shape}")
    if kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        raise ValueError(f"kernel sides must be odd, not {kernel.shape[:2]}")
    x, kernel = _vary_alike(x, kernel)
    return _conv2d(x, kernel, precision, implementation)
