"""Models by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from cmtl_jax.models.cmtl import Architecture, Cmtl

NAMES = ("cmtl", "single_stage")


def build(name: str, **architecture: Any) -> nn.Module:
    """The model of that name: 'cmtl', or 'single_stage' (the paper's ablation without the prior).

    Args:
        name: one of NAMES.
        **architecture: fields of Architecture.

    Raises:
        KeyError: no model of that name.
        TypeError: a field that Architecture does not have.
    """
    if name not in NAMES:
        raise KeyError(f"no model {name!r}; there are {', '.join(NAMES)}")
    fields: Mapping[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in architecture.items()
    }
    return Cmtl(dataclasses.replace(Architecture(), **fields, prior=name == "cmtl"))
