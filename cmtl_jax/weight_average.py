"""The mean of the weights of several runs, which counts as one network.

Between weights before and after a further training it keeps part of what the further training
forgets (WiSE-FT, Wortsman et al., CVPR 2022); of several seeds it is a model soup (Wortsman et al.,
ICML 2022).
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from cmtl_jax.errors import UserError
from cmtl_jax.trained_model import SEPARATOR, TrainedModel

# What the runs must have in common: the network and what it sees, and which pictures they held out.
_NETWORK = ("model", "input", "loss.density_scale", "groups.number")
_HELD_OUT = ("name", "options", "fold", "val_fraction", "val_split", "val_seed", "leave_out")
_SAME = (*_NETWORK, *(f"dataset.{key}" for key in _HELD_OUT))


def average(models: Sequence[TrainedModel]) -> TrainedModel:
    """The mean of the parameters; all else is that of the last.

    Args:
        models: at least one, their parameters on the same devices.

    Raises:
        UserError: they are of different networks, see pictures differently, or held out others.
    """
    last = models[-1]
    for other in models[:-1]:
        for key in _SAME:
            if _value(other, key) != _value(last, key):
                raise UserError(
                    f"the weights of {other.source} and {last.source} cannot be averaged: their "
                    f"config.{key} differ; name weights that were trained one from the other, or "
                    "by the same command with other seeds"
                )
    shapes = [jax.tree.map(jnp.shape, one.params) for one in models]
    if any(one != shapes[-1] for one in shapes):
        raise UserError(f"{SEPARATOR.join(one.source for one in models)}: not of the same network")
    params = jax.tree.map(
        lambda *leaves: sum(leaves) / len(leaves), *(one.params for one in models)
    )
    source = SEPARATOR.join(one.source for one in models)
    return dataclasses.replace(last, params=params, source=source)


def _value(trained: TrainedModel, key: str):
    value = trained.config
    for part in key.split("."):
        value = value[part]
    return value.to_dict() if hasattr(value, "to_dict") else value
