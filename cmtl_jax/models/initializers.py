"""Initial values of the parameters: ours, alive by construction, and the authors'.

The authors' N(0, 0.01) with a ReLU behind the last convolution leaves about half of all seeds dead:
the density is 0 everywhere and so is its gradient, for ever. Ours keeps the variance of the signal
through PReLU layers (He et al., 2015) and starts the last layer with small positive weights and a
small positive bias: the first density is positive and of the size that crowds have. A larger one
would have to be unlearned first, at the cost of the random features below.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from cmtl_jax.models.layers import Initializer

PRELU_SLOPE = 0.25


@dataclasses.dataclass(frozen=True)
class Initializers:
    """One initialiser for each kind of parameter."""

    conv: Initializer
    conv_transpose: Initializer
    dense: Initializer
    output: Initializer  # the last 1x1 convolution
    output_bias: Initializer
    conv_transpose_bias: Initializer
    dense_bias: Initializer


def he() -> Initializers:
    """Ours: He for PReLU; the last layer positive."""
    gain = 2 / (1 + PRELU_SLOPE**2)
    scaled = nn.initializers.variance_scaling
    conv = scaled(gain, "fan_in", "truncated_normal")
    zeros = nn.initializers.zeros

    def positive(key, shape, dtype=jnp.float32):
        return 0.1 * jnp.abs(scaled(1.0, "fan_in", "normal")(key, shape, dtype))

    return Initializers(
        conv=conv,
        # Stride 2 in both directions: each output pixel is reached by a quarter of the taps.
        conv_transpose=scaled(4 * gain, "fan_in", "truncated_normal"),
        dense=conv,
        output=positive,
        output_bias=nn.initializers.constant(0.05),
        conv_transpose_bias=zeros,
        dense_bias=zeros,
    )


def released() -> Initializers:
    """The authors' code: N(0, 0.01) for convolutions and dense layers, framework defaults else."""
    normal = nn.initializers.normal(0.01)
    zeros = nn.initializers.zeros

    def uniform(bound: float) -> Initializer:
        def init(key, shape, dtype=jnp.float32):
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        return init

    def conv_transpose(key, shape, dtype=jnp.float32):
        height, width, _, features = shape  # that framework counts the output's channels as fan-in
        return uniform(1 / math.sqrt(height * width * features))(key, shape, dtype)

    def conv_transpose_bias(key, shape, dtype=jnp.float32):
        return uniform(1 / math.sqrt(4 * 4 * shape[0]))(key, shape, dtype)

    return Initializers(
        conv=normal,
        conv_transpose=conv_transpose,
        dense=normal,
        output=normal,
        output_bias=zeros,
        conv_transpose_bias=conv_transpose_bias,
        # The framework's default depends on the fan-in, which differs from layer to layer; all
        # three are below 0.07 and the released training replaces them within a few steps.
        dense_bias=uniform(1 / math.sqrt(512)),
    )


# Whitened parameters are drawn like he's, then fitted to pictures: see whitening.py.
BY_NAME = {"he": he, "whitened": he, "released": released}
