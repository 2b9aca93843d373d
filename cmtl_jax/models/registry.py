"""Models by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from cmtl_jax.models import mcnn
from cmtl_jax.models.cmtl import Architecture, Cmtl

NAMES = ("cmtl", "single_stage", "mcnn")


def build(name: str, **architecture: Any) -> nn.Module:
    """The model of that name.

    Args:
        name: 'cmtl', 'single_stage' (the paper's ablation without the prior), or 'mcnn' (Zhang et
            al., CVPR 2016), which ignores the fields that it has no use for.
        **architecture: fields of cmtl.Architecture.

    Raises:
        KeyError: no model of that name.
        TypeError: a field that cmtl.Architecture does not have.
    """
    if name not in NAMES:
        raise KeyError(f"no model {name!r}; there are {', '.join(NAMES)}")
    fields: Mapping[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in architecture.items()
    }
    cascade = dataclasses.replace(Architecture(), **fields, prior=name == "cmtl")
    if name == "mcnn":
        known = {field.name for field in dataclasses.fields(mcnn.Architecture)}
        return mcnn.Mcnn(mcnn.Architecture(**{k: v for k, v in fields.items() if k in known}))
    return Cmtl(cascade)
