"""What every model returns."""

from typing import NamedTuple

import jax


class CmtlOutput(NamedTuple):
    """The two outputs of the cascade (paper, Figure 2).

    Attributes:
        density: float32 [B, H, W, 1], people per pixel; exactly 0 outside each picture's size.
        group_logits: float32 [B, num_groups], scores of the crowd-count groups; None for a model
            without the high-level prior.
    """

    density: jax.Array
    group_logits: jax.Array | None
