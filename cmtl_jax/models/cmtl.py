"""The cascade of the paper: shared layers, high-level prior, density estimation (Figure 2).

    image ─ SharedLayers ─┬─ HighLevelPrior ──┬── GroupHead ── group_logits
                          │                   │ (features of its last convolution)
                          └─ DensityStage ────┴── Decoder ──── density

With prior_fusion 'film' the group logits also modulate what the decoder reads.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from cmtl_jax.models import initializers
from cmtl_jax.models.layers import (
    STRIDE,
    Features,
    MaskedConv,
    MaskedConvTranspose,
    PReLU,
    adaptive_max_pool,
    apply_mask,
    at_least_float32,
    dropout,
    extent,
    max_pool,
    require_whole_cells,
    value,
)
from cmtl_jax.models.output import CmtlOutput


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Every choice of the network; the defaults are the released configuration.

    Attributes:
        num_groups: number of crowd-count groups.
        prior: False leaves the high-level prior out (the paper's single-stage baseline, Table 1).
        prior_pool: 'adaptive_max' (authors' code: 32x32 cells, then a 1x1 convolution to 4 maps) or
            'spp' (paper: spatial pyramid pooling).
        prior_fusion: how the prior reaches the density. 'features' (paper: its last features are
            concatenated to the density stage's); 'film' (ours): these are also scaled and shifted
            by what the group probabilities say, so that the classification itself acts on the
            density, at inference, too; the density is then no local function of the picture.
        spp_levels: cells a side of each pyramid level; the paper gives none.
        up_maps: of the fractionally strided convolutions: (16, 8) released, (16, 18) paper.
        logit_activation: 'none', or 'prelu' (paper and authors' code: PReLU after every layer).
        dropout: rate after the first two fully connected layers (authors' code: 0.5; paper: none).
        output_activation: 'relu' or 'softplus' behind the last convolution.
        density_scale: the network's raw output per person and pixel; density is divided by it.
        init: 'he' (ours, alive by construction), 'whitened' (the same, to be fitted to pictures by
            whitening.fit) or 'released' (N(0, 0.01)).
        dtype: type of the computation; parameters and outputs stay float32.
    """

    num_groups: int = 10
    prior: bool = True
    prior_pool: str = "adaptive_max"
    prior_fusion: str = "features"
    spp_levels: tuple[int, ...] = (4, 2, 1)
    up_maps: tuple[int, int] = (16, 8)
    logit_activation: str = "none"
    dropout: float = 0.5
    output_activation: str = "relu"
    density_scale: float = 1.0
    init: str = "he"
    dtype: str = "float32"


class ConvPReLU(nn.Module):
    """A convolution and its PReLU."""

    architecture: Architecture
    features: int
    kernel_size: int

    @nn.compact
    def __call__(self, x: Features, size: jax.Array) -> Features:
        a = self.architecture
        conv_init = initializers.BY_NAME[a.init]().conv
        x = MaskedConv(self.features, self.kernel_size, conv_init, dtype=a.dtype, name="conv")(
            x, size
        )
        return PReLU(lazy=True, name="prelu")(x)


class SharedLayers(nn.Module):
    """Shared convolutional layers (paper, 3.1): 9x9x16 and 7x7x32 at full resolution."""

    architecture: Architecture

    @nn.compact
    def __call__(self, image: jax.Array, size: jax.Array) -> Features:
        """[B, H, W, C], size in pixels -> [B, H, W, 32]."""
        x = ConvPReLU(self.architecture, 16, 9, name="conv1")(image, size)
        return ConvPReLU(self.architecture, 32, 7, name="conv2")(x, size)


class HighLevelPrior(nn.Module):
    """Convolutions of the high-level prior stage (paper, 3.2); sizes from the authors' code."""

    architecture: Architecture

    @nn.compact
    def __call__(self, shared: Features, size: jax.Array) -> jax.Array:
        """[B, H, W, 32], size in pixels -> features of the last convolution [B, H/4, W/4, 8]."""
        a = self.architecture
        x = max_pool(ConvPReLU(a, 16, 9, name="conv1")(shared, size))
        x = max_pool(ConvPReLU(a, 32, 7, name="conv2")(x, size // 2))
        x = ConvPReLU(a, 16, 7, name="conv3")(x, size // 4)
        return value(ConvPReLU(a, 8, 7, name="conv4")(x, size // 4))


class GroupHead(nn.Module):
    """Pooling to a fixed size and the fully connected layers 512, 256, num_groups (paper, 3.2)."""

    architecture: Architecture

    @nn.compact
    def __call__(
        self, features: jax.Array, size: jax.Array, dropout_keys: jax.Array | None
    ) -> jax.Array:
        """features [B, h, w, 8], size in their cells, keys [B] or None -> logits float32 [B, G]."""
        a = self.architecture
        init = initializers.BY_NAME[a.init]()

        def dense(x, width, name):
            return nn.Dense(
                width, kernel_init=init.dense, bias_init=init.dense_bias, dtype=a.dtype, name=name
            )(x)

        x = self._pool(features, size)
        for i, width in enumerate((512, 256), start=1):
            x = PReLU(name=f"prelu{i}")(dense(x, width, f"fc{i}"))
            keys = (
                None
                if dropout_keys is None
                else jax.vmap(jax.random.fold_in, (0, None))(dropout_keys, i)
            )
            x = dropout(x, keys, a.dropout)
        x = dense(x, a.num_groups, "fc3")
        if a.logit_activation == "prelu":
            x = PReLU(name="prelu3")(x)
        return at_least_float32(x)

    def _pool(self, features: jax.Array, size: jax.Array) -> jax.Array:
        a = self.architecture
        if a.prior_pool == "spp":
            levels = [adaptive_max_pool(features, size, bins) for bins in a.spp_levels]
            return jnp.concatenate([x.reshape(x.shape[0], -1) for x in levels], axis=-1)
        x = adaptive_max_pool(features, size, 32)
        whole = jnp.full_like(size, 32)
        x = value(ConvPReLU(a, 4, 1, name="reduce")(x, whole))
        return x.reshape(x.shape[0], -1)


class DensityStage(nn.Module):
    """First convolutions of the density estimation stage (paper, 3.3)."""

    architecture: Architecture

    @nn.compact
    def __call__(self, shared: Features, size: jax.Array) -> jax.Array:
        """[B, H, W, 32], size in pixels -> [B, H/4, W/4, 10]."""
        a = self.architecture
        x = max_pool(ConvPReLU(a, 20, 7, name="conv1")(shared, size))
        x = max_pool(ConvPReLU(a, 40, 5, name="conv2")(x, size // 2))
        x = ConvPReLU(a, 20, 5, name="conv3")(x, size // 4)
        return value(ConvPReLU(a, 10, 5, name="conv4")(x, size // 4))


class Decoder(nn.Module):
    """Convolutions and fractionally strided convolutions back to full resolution (paper, 3.3)."""

    architecture: Architecture

    @nn.compact
    def __call__(self, features: jax.Array, size: jax.Array) -> jax.Array:
        """[B, H/4, W/4, 18], size in pixels -> raw density [B, H, W, 1], before its activation."""
        a = self.architecture
        init = initializers.BY_NAME[a.init]()
        x = ConvPReLU(a, 24, 3, name="conv1")(features, size // 4)
        x = ConvPReLU(a, 32, 3, name="conv2")(x, size // 4)
        for i, maps in enumerate(a.up_maps, start=1):
            x = MaskedConvTranspose(
                maps, init.conv_transpose, init.conv_transpose_bias, a.dtype, name=f"up{i}"
            )(x, size // (4 // 2**i))
            x = PReLU(name=f"prelu{i}")(x)
        return MaskedConv(1, 1, init.output, init.output_bias, a.dtype, name="output")(x, size)


class GroupModulation(nn.Module):
    """Scales and shifts features by the group probabilities (FiLM, Perez et al., 2018)."""

    @nn.compact
    def __call__(self, features: jax.Array, logits: jax.Array, size: jax.Array) -> jax.Array:
        """[B, h, w, C], logits [B, G], size in the features' cells -> [B, h, w, C]."""
        # Zeros: the training starts from the cascade of the paper.
        dense = nn.Dense(
            2 * features.shape[-1], use_bias=False, kernel_init=nn.initializers.zeros, name="dense"
        )
        scale, shift = jnp.split(dense(nn.softmax(logits))[:, None, None, :], 2, axis=-1)
        return apply_mask(features * (1 + scale) + shift, size).astype(features.dtype)


class Cmtl(nn.Module):
    """The cascaded network (paper, Figure 2)."""

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
            dropout_keys: [B] PRNG keys, one an example, while training; None in evaluation.

        Returns:
            CmtlOutput: density float32 [B, H, W, 1], 0 outside size; group_logits [B, num_groups].

        Raises:
            ValueError: a side is no multiple of 4.
        """
        a = self.architecture
        require_whole_cells(image)
        whole = extent(size)
        shared = SharedLayers(a, name="shared")(apply_mask(image, size), whole)
        features = DensityStage(a, name="density")(shared, whole)
        logits = None
        if a.prior:
            prior = HighLevelPrior(a, name="prior")(shared, whole)
            logits = GroupHead(a, name="head")(prior, whole // STRIDE, dropout_keys)
            features = jnp.concatenate([prior, features], axis=-1)
            if a.prior_fusion == "film":
                features = GroupModulation(name="modulation")(features, logits, whole // STRIDE)
        raw = at_least_float32(Decoder(a, name="decoder")(features, whole))
        activation = {"relu": nn.relu, "softplus": nn.softplus}[a.output_activation]
        return CmtlOutput(apply_mask(activation(raw) / a.density_scale, size), logits)
