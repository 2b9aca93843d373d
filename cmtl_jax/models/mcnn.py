"""The multi-column network (Zhang et al., CVPR 2016), as in the authors of CMTL's PyTorch release.

    image ─┬─ branch1 (9, 7, 7, 7) ─┐
           ├─ branch2 (7, 5, 5, 5) ─┼─ output (1x1) ── density, 1/4 resolution
           └─ branch3 (5, 3, 3, 3) ─┘

A ReLU follows every convolution, the last one included. There is no crowd-count group.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from cmtl_jax.models import initializers
from cmtl_jax.models.layers import (
    STRIDE,
    MaskedConv,
    apply_mask,
    at_least_float32,
    extent,
    max_pool,
    require_whole_cells,
    valid_mask,
)
from cmtl_jax.models.output import CmtlOutput

# Of each column: sides and numbers of the filters of its four convolutions.
COLUMNS = {
    "branch1": ((9, 7, 7, 7), (16, 32, 16, 8)),
    "branch2": ((7, 5, 5, 5), (20, 40, 20, 10)),
    "branch3": ((5, 3, 3, 3), (24, 48, 24, 12)),
}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The choices of cmtl.Architecture that this network has; the defaults are the released ones.

    Attributes:
        output_activation: 'relu' or 'softplus' behind the last convolution.
        density_scale: the network's raw output per person and cell; density is divided by it.
        init: 'he' (as the cascade's; 'whitened' is drawn alike) or 'released' (N(0, 0.01), zero
            bias).
        dtype: type of the computation; parameters and outputs stay float32.
    """

    output_activation: str = "relu"
    density_scale: float = 1.0
    init: str = "he"
    dtype: str = "float32"


class Column(nn.Module):
    """Four convolutions with ReLU, a 2x2 max pooling after each of the first two."""

    architecture: Architecture
    kernel_sizes: tuple[int, ...]
    features: tuple[int, ...]

    @nn.compact
    def __call__(self, image: jax.Array, size: jax.Array) -> jax.Array:
        """[B, H, W, C], size in pixels -> [B, H/4, W/4, features of the last convolution]."""
        a = self.architecture
        conv_init = initializers.BY_NAME[a.init]().conv
        x, stride = image, 1
        for i, (side, maps) in enumerate(zip(self.kernel_sizes, self.features, strict=True), 1):
            conv = MaskedConv(maps, side, conv_init, dtype=a.dtype, name=f"conv{i}")
            x = nn.relu(conv(x, size // stride))
            if i <= 2:
                x, stride = max_pool(x), 2 * stride
        return x


class Mcnn(nn.Module):
    """The multi-column network."""

    architecture: Architecture = Architecture()

    @nn.compact
    def __call__(
        self, image: jax.Array, size: jax.Array, dropout_keys: jax.Array | None = None
    ) -> CmtlOutput:
        """Counts the people of a batch of pictures.

        Args:
            image: float32 [B, H, W, C], normalised; H and W multiples of 4. Values outside size
                are ignored.
            size: int32 [B, 2], valid height and width of each picture, at least 1.
            dropout_keys: not used, this network has no dropout.

        Returns:
            CmtlOutput: density float32 [B, H, W, 1], 0 outside size; group_logits None. The people
            of each cell of 4x4 pixels are spread evenly over its pixels inside size, so that the
            sum is that of the network's map.

        Raises:
            ValueError: a side is no multiple of 4.
        """
        a = self.architecture
        require_whole_cells(image)
        whole = extent(size)
        masked = apply_mask(image, size)
        columns = [
            Column(a, sides, maps, name=name)(masked, whole)
            for name, (sides, maps) in COLUMNS.items()
        ]
        init = initializers.BY_NAME[a.init]()
        output = MaskedConv(1, 1, init.output, init.output_bias, a.dtype, name="output")
        raw = at_least_float32(output(jnp.concatenate(columns, axis=-1), whole // STRIDE))
        activation = {"relu": nn.relu, "softplus": nn.softplus}[a.output_activation]
        return CmtlOutput(_spread(activation(raw) / a.density_scale, size), None)


def _spread(people: jax.Array, size: jax.Array) -> jax.Array:
    """People a cell [B, H/4, W/4, 1], size in pixels -> people a pixel [B, H, W, 1]."""
    b, h, w, _ = people.shape
    inside = valid_mask(size, h * STRIDE, w * STRIDE)
    pixels = inside.reshape(b, h, STRIDE, w, STRIDE, 1).sum(axis=(2, 4))
    density = people / jnp.maximum(pixels, 1)
    return apply_mask(density.repeat(STRIDE, axis=1).repeat(STRIDE, axis=2), size)
