"""The authors' released parameters (HDF5, layouts of their framework) as ours, and the way back.

There are two formats: the cascade (github.com/svishwa/crowdcount-cascaded-mtl) and the multi-column
network (github.com/svishwa/crowdcount-mcnn). Both networks read raw grey levels of pictures resized
down to sides that 4 divides; a file of ours may say otherwise in its attributes.
"""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import h5py
import jax
import jax.numpy as jnp
import numpy as np

from cmtl_jax.errors import UserError
from cmtl_jax.models import mcnn, registry

Arrays = dict[str, np.ndarray]

# Beside the defaults; what it does not know is ignored by MCNN.
ARCHITECTURE = {"logit_activation": "prelu"}

# Preprocessing and output of the authors' networks; attributes of a file take their place.
SETTINGS = {
    "input_mean": 0.0,
    "input_std": 1.0,
    "input_resize": "multiple_of_4",
    "density_scale": 1.0,
}
ABOUT = "about"  # attribute: what a checkpoint of ours says of itself, JSON

_PREFIXES = {"cmtl": "CCN.", "mcnn": "DME."}
_FIRST = {"cmtl": "base_layer.0.conv.weight", "mcnn": "branch1.0.conv.weight"}
_NAMES = {"cmtl": "CMTL", "mcnn": "MCNN"}
_OF_THE_LOSS = "loss_bce_fn."  # saved by their training beside the network
_POOLED = (4, 32, 32)  # what the first fully connected layer reads, channels first


class _Layout(NamedTuple):
    """Their array -> ours, and ours -> theirs."""

    ours: Callable[[np.ndarray], np.ndarray]
    theirs: Callable[[np.ndarray], np.ndarray]


def _from_channels_first(kernel: np.ndarray) -> np.ndarray:
    rows = kernel.T.reshape(*_POOLED, -1).transpose(1, 2, 0, 3)
    return rows.reshape(kernel.T.shape)


def _to_channels_first(kernel: np.ndarray) -> np.ndarray:
    channels, *cells = _POOLED
    rows = kernel.reshape(*cells, channels, -1).transpose(2, 0, 1, 3)
    return rows.reshape(kernel.shape).T


_PLAIN = _Layout(lambda x: x, lambda x: x)
_SLOPE = _Layout(lambda x: x.reshape(()), lambda x: x.reshape(1))
_CONV = _Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
_DENSE = _Layout(lambda x: x.T, lambda x: x.T)
_FIRST_DENSE = _Layout(_from_channels_first, _to_channels_first)
# Theirs scatters with the kernel, ours gathers: flipped, and channels exchanged.
_TRANSPOSED = _Layout(
    lambda x: x.transpose(2, 3, 0, 1)[::-1, ::-1], lambda x: x[::-1, ::-1].transpose(2, 3, 0, 1)
)

_Row = tuple[tuple[str, ...], str, _Layout]  # path in our tree, their key, layouts


def _kernel_and_bias(path: tuple[str, ...], key: str, layout: _Layout) -> Iterator[_Row]:
    yield (*path, "kernel"), f"{key}.weight", layout
    yield (*path, "bias"), f"{key}.bias", _PLAIN


def _cmtl() -> Iterator[_Row]:
    # A stage's numbers skip its poolings.
    stages = {
        ("shared", "conv1"): "base_layer.0",
        ("shared", "conv2"): "base_layer.1",
        **{("prior", f"conv{i}"): f"hl_prior_1.{n}" for i, n in enumerate((0, 2, 4, 5), 1)},
        ("head", "reduce"): "hl_prior_2.1",
        **{("density", f"conv{i}"): f"de_stage_1.{n}" for i, n in enumerate((0, 2, 4, 5), 1)},
        ("decoder", "conv1"): "de_stage_2.0",
        ("decoder", "conv2"): "de_stage_2.1",
    }
    for path, key in stages.items():
        yield from _kernel_and_bias((*path, "conv"), f"{key}.conv", _CONV)
        yield (*path, "prelu", "slope"), f"{key}.relu.weight", _SLOPE
    for i in (1, 2, 3):
        layout = _FIRST_DENSE if i == 1 else _DENSE
        yield from _kernel_and_bias(("head", f"fc{i}"), f"hl_prior_fc{i}.fc", layout)
        yield ("head", f"prelu{i}", "slope"), f"hl_prior_fc{i}.relu.weight", _SLOPE
    for i, n in ((1, 2), (2, 4)):
        path = ("decoder", f"up{i}", "conv")
        yield from _kernel_and_bias(path, f"de_stage_2.{n}", _TRANSPOSED)
        yield ("decoder", f"prelu{i}", "slope"), f"de_stage_2.{n + 1}.weight", _SLOPE
    yield from _kernel_and_bias(("decoder", "output"), "de_stage_2.6.conv", _CONV)


def _mcnn() -> Iterator[_Row]:
    for branch in mcnn.COLUMNS:
        for i, n in enumerate((0, 2, 4, 5), 1):
            yield from _kernel_and_bias((branch, f"conv{i}"), f"{branch}.{n}.conv", _CONV)
    yield from _kernel_and_bias(("output",), "fuse.0.conv", _CONV)


_FORMATS = {"cmtl": tuple(_cmtl()), "mcnn": tuple(_mcnn())}


def to_ours(model: str, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters of registry.build(model, **ARCHITECTURE).

    Args:
        model: 'cmtl' or 'mcnn'.
        arrays: theirs by key, such as 'CCN.base_layer.0.conv.weight'.

    Returns:
        Nested dict of arrays in our layouts.

    Raises:
        KeyError: one of theirs is missing.
    """
    ours: dict[str, Any] = {}
    for path, key, layout in _FORMATS[model]:
        node = ours
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = np.array(layout.ours(arrays[_PREFIXES[model] + key]), order="C")
    return ours


def to_theirs(model: str, params: Mapping[str, Any]) -> Arrays:
    """The inverse of `to_ours`.

    Raises:
        KeyError: one of ours is missing.
    """
    theirs = {}
    for path, key, layout in _FORMATS[model]:
        array = functools.reduce(lambda node, name: node[name], path, params)
        theirs[_PREFIXES[model] + key] = np.array(layout.theirs(np.asarray(array)), order="C")
    return theirs


@functools.cache
def shapes(model: str) -> dict[str, Any]:
    """Shapes of our parameters that have a released format: a nested dict of ShapeDtypeStruct."""
    image, size = jnp.zeros((1, 32, 32, 1)), jnp.full((1, 2), 32)
    built = registry.build(model, **ARCHITECTURE)
    return jax.eval_shape(lambda: built.init(jax.random.key(0), image, size)["params"])


@dataclasses.dataclass(frozen=True)
class ReleasedWeights:
    """What a released file holds.

    Attributes:
        model: 'cmtl' or 'mcnn'.
        params: nested dict of float32 arrays in our layouts.
        settings: preprocessing and output, see SETTINGS.
        about: what the checkpoint says of itself that a file of ours was exported from, else None.
    """

    model: str
    params: dict[str, Any]
    settings: dict[str, Any]
    about: dict[str, Any] | None


def load(path: str | pathlib.Path) -> ReleasedWeights:
    """Reads a file of the authors' PyTorch code, or one of ours in that format.

    Args:
        path: an HDF5 file, recognised by its keys.

    Raises:
        UserError: no such file, or one of something else.
    """
    arrays, attributes = _read(path)
    model = _recognise(path, arrays)
    prefix = _PREFIXES[model]
    found = {
        prefix + key.removeprefix(prefix): array
        for key, array in arrays.items()
        if not key.startswith(_OF_THE_LOSS)
    }
    template = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes(model))
    expected = {key: array.shape for key, array in to_theirs(model, template).items()}
    for key in sorted(expected.keys() | found.keys()):
        if key not in found:
            raise UserError(f"{path} holds {_NAMES[model]}, but {key} is missing")
        if key not in expected:
            raise UserError(f"{path} holds {_NAMES[model]} and {key}, which that does not have")
        if found[key].shape != expected[key]:
            raise UserError(
                f"{path} holds {_NAMES[model]}, but {key} has shape {found[key].shape}, not "
                f"{expected[key]} as in the released network"
            )
    try:
        found = {key: array.astype(np.float32) for key, array in found.items()}
        settings = _settings(attributes)
        about = json.loads(attributes[ABOUT]) if ABOUT in attributes else None
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{path} holds {_NAMES[model]}, but values that are none: {error}"
        ) from error
    return ReleasedWeights(model, to_ours(model, found), settings, about)


def read(path: str | pathlib.Path) -> dict[str, Any]:
    """The parameters alone of `load`."""
    return load(path).params


def _read(path: str | pathlib.Path) -> tuple[Arrays, dict[str, Any]]:
    try:
        with h5py.File(path) as file:
            arrays = {k: np.asarray(v) for k, v in file.items() if isinstance(v, h5py.Dataset)}
            return arrays, dict(file.attrs)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read as HDF5, the format of the authors' released weights: {error}"
        ) from error


def _recognise(path: str | pathlib.Path, arrays: Arrays) -> str:
    for model, prefix in _PREFIXES.items():
        if {_FIRST[model], prefix + _FIRST[model]} & arrays.keys():
            return model
    there = ", ".join(sorted(arrays)[:3]) + (", ..." if len(arrays) > 3 else "")
    raise UserError(
        f"{path} is an HDF5 file, but holds neither CMTL ({_PREFIXES['cmtl']}{_FIRST['cmtl']}, "
        f"...) nor MCNN ({_PREFIXES['mcnn']}{_FIRST['mcnn']}, ...); it holds "
        f"{there or 'no arrays under names of its own'}"
    )


def _settings(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """SETTINGS, or what the attributes say, as plain numbers and texts."""
    settings = {}
    for name, default in SETTINGS.items():
        value = attributes.get(name, default)
        value = value.decode() if isinstance(value, bytes) else value
        settings[name] = type(default)(value)
    if settings["input_resize"] not in ("none", "multiple_of_4"):
        raise ValueError(f"input_resize {settings['input_resize']!r}")
    for name in ("input_std", "density_scale"):
        if not 0 < settings[name] < math.inf:
            raise ValueError(f"{name} {settings[name]!r}")
    return settings
