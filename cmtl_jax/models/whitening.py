"""A start that sees texture: first parameters made to fit the pictures they will be trained on.

Neighbouring pixels are alike, so that random filters answer the mean brightness of their window
above all, and the network has to learn to look past it before it can learn heads. Here the first
convolution takes the principal components of the pictures' windows, each scaled to unit variance,
and every convolution after it is scaled and shifted so that each of its channels has mean 0 and
variance 1 before its PReLU, as batch normalisation would have it, without the batch dependence.
Known as PCA initialisation (Krahenbuhl et al., 2016) and layer-sequential unit variance (Mishkin
and Matas, 2016). The architecture is unchanged.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from cmtl_jax.models.layers import MaskedConv, MaskedConvTranspose, valid_mask

PyTree = Any

_FIRST = ("shared", "conv1", "conv")
_STEP = 4  # pixels between the windows looked at
_NOISE = 1e-3  # of the largest variance, added to all: JPEG noise is not to be blown up


def fit(
    model: nn.Module, params: PyTree, image: jax.Array, size: jax.Array, density: jax.Array
) -> PyTree:
    """Parameters that fit a sample of crops.

    Args:
        model: the network. Where it has shared layers, the first of them takes the principal
            components; its last convolution is named output.
        params: its initial parameters.
        image: float32 [B, H, W, C], normalised.
        size: int32 [B, 2], valid height and width of each crop.
        density: float32 [B, H, W, 1], people per pixel.

    Returns:
        The parameters with all convolutions fitted; the output's is scaled so that the first
        density has as many people as the true one. A first convolution with more filters than its
        windows have values, and a channel that does not vary over the crops, stay as they are.
    """
    if _FIRST[0] in params:
        kernel = _get(params, _FIRST)["kernel"]
        kernel = _principal_components(kernel, image, size)
        params = _replace(params, _FIRST, {"kernel": kernel})

    moments, outputs = {}, []

    def normalise(call, args, kwargs, context):
        y = call(*args, **kwargs)
        module = context.module
        measured = isinstance(module, MaskedConv | MaskedConvTranspose)
        if not measured or context.method_name != "__call__":
            return y
        if module.name == "output":
            outputs.append(module.path)
            return y
        mask = valid_mask(args[1], *y.shape[1:3])
        moments[module.path] = mean, std = _moments(y, mask)
        return jnp.where(mask, (y - mean) / std, 0)

    with nn.intercept_methods(normalise):
        model.apply({"params": params}, image, size)
    for path, (mean, std) in moments.items():
        layer = _get(params, path)
        if "kernel" not in layer:  # the transposed convolution holds it one level deeper
            path, layer = (*path, "conv"), layer["conv"]
        fitted = {"kernel": layer["kernel"] / std, "bias": (layer["bias"] - mean) / std}
        params = _replace(params, path, fitted)
    people = model.apply({"params": params}, image, size).density.sum()
    ratio = density.sum() / people
    # Crops without people, or a density of 0, tell nothing.
    ratio = jnp.where((ratio > 0) & jnp.isfinite(ratio), ratio, 1)
    for path in outputs:
        output = jax.tree.map(lambda x: x * ratio, _get(params, path))
        params = _replace(params, path, output)
    return params


def _moments(y: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation [C] of y [B, H, W, C] where mask [B, H, W, 1] holds."""
    number = mask.sum()
    mean = jnp.where(mask, y, 0).sum((0, 1, 2)) / number
    variance = jnp.where(mask, jnp.square(y - mean), 0).sum((0, 1, 2)) / number
    varies = variance > 1e-10
    return jnp.where(varies, mean, 0), jnp.where(varies, jnp.sqrt(variance), 1)


def _principal_components(kernel: jax.Array, image: jax.Array, size: jax.Array) -> jax.Array:
    """Leading components of the windows of crops, unit variance, signs those of `kernel`'s."""
    height, width, channels, features = kernel.shape
    dimensions = height * width * channels
    if features > dimensions or image.shape[1] < height or image.shape[2] < width:
        return kernel
    windows = jax.lax.conv_general_dilated_patches(
        image, (height, width), (_STEP, _STEP), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )  # [B, rows, columns, C * height * width]
    ends = [_STEP * jnp.arange(n) + k for n, k in zip(windows.shape[1:3], (height, width))]
    inside = (ends[0][None, :, None] <= size[:, 0, None, None]) & (
        ends[1][None, None, :] <= size[:, 1, None, None]
    )
    inside = inside.reshape(-1, 1).astype(image.dtype)
    windows = windows.reshape(-1, dimensions)
    number = jnp.maximum(inside.sum(), 1)
    mean = (inside * windows).sum(0) / number
    centred = inside * (windows - mean)
    covariance = jnp.dot(centred.T, centred, precision="highest") / number
    variance, components = jnp.linalg.eigh(covariance)  # ascending
    variance, components = variance[::-1][:features], components[:, ::-1][:, :features]
    # eigh leaves the signs open: here the largest entry is positive, times a random sign.
    largest = jnp.take_along_axis(components, jnp.abs(components).argmax(0)[None], axis=0)
    signs = jnp.sign(largest) * jnp.where(kernel[0, 0, 0] < 0, -1, 1)
    components = signs * components / jnp.sqrt(variance + _NOISE * variance[0] + 1e-12)
    fitted = components.reshape(channels, height, width, features).transpose(1, 2, 0, 3)
    return jnp.where(variance[0] > 1e-8, fitted, kernel).astype(kernel.dtype)


def _get(tree: PyTree, path: tuple[str, ...]) -> PyTree:
    for name in path:
        tree = tree[name]
    return tree


def _replace(tree: PyTree, path: tuple[str, ...], values: dict[str, jax.Array]) -> PyTree:
    if not path:
        return {**tree, **values}
    return {**tree, path[0]: _replace(tree[path[0]], path[1:], values)}
