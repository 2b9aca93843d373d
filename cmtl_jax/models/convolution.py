"""Stride-1 convolution whose weight gradient is fast on CPU as well.

The forward pass and the input gradient are the plain ``jax.lax.conv_general_dilated``. Only the
gradient of the kernel has a rule of its own: XLA's CPU convolution becomes several times slower
once the kernel gradient of several examples has more than 16 output channels, so there it is taken
in chunks of channels or example by example. Every implementation computes the same sums, in
another order.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

# Measured with jax 0.10 and 0.12: as a kernel gradient, XLA's CPU convolution of several examples
# is efficient up to 16 output channels, and that of a single example above 16.
_CHUNK = 16
# It slows down with the number of examples as well, so they are taken in groups; for few examples
# or small pictures one example at a time is faster than chunks of channels.
_GROUP = 8
_SMALL_GROUP = 4
_SMALL_AREA = 128 * 128


def _pads(size: tuple[int, int]) -> list[tuple[int, int]]:
    return [(k // 2, k // 2) for k in size]


def _plain(x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding=_pads(kernel.shape[:2]),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
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


def _grouped(
    x: jax.Array, g: jax.Array, size: tuple[int, int], precision: lax.PrecisionLike
) -> jax.Array:
    """Kernel gradient on CPU: ``_split`` in groups of examples, ``_single`` for a small group."""
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
    "grouped": _grouped,
}
IMPLEMENTATIONS = tuple(_KERNEL_GRADIENTS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv2d(
    x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike, implementation: str
) -> jax.Array:
    return _plain(x, kernel, precision)


def _conv2d_fwd(x, kernel, precision, implementation):
    return _plain(x, kernel, precision), (x, kernel)


def _conv2d_bwd(precision, implementation, residuals, g):
    x, kernel = residuals
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
            ``"grouped"``: split or single by shape, in groups of 8 examples; ``"auto"``: grouped
            on CPU, plain on GPU and TPU and for symbolic shapes. ``"single"`` and ``"grouped"``
            unroll over the batch, which must be a known number of at least 1 for them.

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
