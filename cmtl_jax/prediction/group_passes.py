"""Where the count groups act on the density (prior_fusion 'film'): tiles in two passes, exactly.

Group probabilities are a matter of the whole picture, all else is local. So the prior's features of
all tiles are put together first; the head reads them as it would those of the whole picture; then
each tile's density is computed with these features and logits in place of its own.
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn

from cmtl_jax.models.cmtl import Cmtl, GroupHead, HighLevelPrior

PyTree = Any
Arrays = Mapping[str, jax.Array]


def prior_features(model: Cmtl, params: PyTree, batch: Arrays) -> jax.Array:
    """The last features of the high-level prior.

    Args:
        model: with the prior.
        params: its parameters.
        batch: image [B, H, W, C] and size [B, 2], as the model takes them.

    Returns:
        [B, H/4, W/4, 8], right where the picture is known 56 pixels around.
    """
    _, seen = model.apply(
        {"params": params},
        batch["image"],
        batch["size"],
        capture_intermediates=lambda module, _: isinstance(module, HighLevelPrior),
        mutable="intermediates",
    )
    (features,) = jax.tree.leaves(seen)
    return features


def group_logits(model: Cmtl, params: PyTree, batch: Arrays) -> jax.Array:
    """Logits [B, G] from features [B, h, w, 8] and their valid size, int32 [B, 2]."""
    head = GroupHead(model.architecture)
    return head.apply({"params": params["head"]}, batch["features"], batch["size"], None)


def density(model: Cmtl, params: PyTree, batch: Arrays) -> jax.Array:
    """Density [B, H, W, 1] with given features and logits; of the prior nothing is computed.

    Args:
        model: with the prior.
        params: its parameters.
        batch: image and size, as the model takes them; features [B, H/4, W/4, 8] of
            `prior_features`; logits [B, G] of `group_logits`.
    """
    given = {HighLevelPrior: batch["features"], GroupHead: batch["logits"]}

    def instead(call, arguments, keywords, context):
        found = given.get(type(context.module))
        return call(*arguments, **keywords) if found is None else found

    with nn.intercept_methods(instead):
        return model.apply({"params": params}, batch["image"], batch["size"]).density
