"""The authors' released parameters (HDF5, layouts of their framework) as ours."""

import pathlib
from typing import Any

import h5py
import numpy as np

from cmtl_jax.errors import UserError

# Ours -> theirs. A stage's numbers skip its poolings.
_CONVOLUTIONS = {
    ("shared", "conv1"): "base_layer.0",
    ("shared", "conv2"): "base_layer.1",
    **{("prior", f"conv{i}"): f"hl_prior_1.{n}" for i, n in enumerate((0, 2, 4, 5), start=1)},
    ("head", "reduce"): "hl_prior_2.1",
    **{("density", f"conv{i}"): f"de_stage_1.{n}" for i, n in enumerate((0, 2, 4, 5), start=1)},
    ("decoder", "conv1"): "de_stage_2.0",
    ("decoder", "conv2"): "de_stage_2.1",
}
_OUTPUT = "de_stage_2.6"
_FRACTIONALLY_STRIDED = {"up1": "de_stage_2.2", "up2": "de_stage_2.4"}
_DECODER_SLOPES = {"prelu1": "de_stage_2.3", "prelu2": "de_stage_2.5"}
_POOLED = (4, 32, 32)  # what the first fully connected layer reads, channels first

ARCHITECTURE = {"logit_activation": "prelu"}  # beside the defaults


def read(path: str | pathlib.Path) -> dict[str, Any]:
    """Parameters of the cascade for registry.build('cmtl', **ARCHITECTURE).

    Args:
        path: an HDF5 file of the authors' PyTorch code.

    Returns:
        Nested dict of float32 arrays in our layouts.

    Raises:
        UserError: no such file, or not one of CMTL.
    """
    try:
        with h5py.File(path) as file:
            theirs = {key.removeprefix("CCN."): np.asarray(file[key]) for key in file}
        return _convert(theirs)
    except OSError as error:
        raise UserError(f"{path} cannot be read as HDF5: {error}") from error
    except KeyError as error:
        raise UserError(
            f"{path} holds no released CMTL parameters: {error} is missing"
        ) from error


def _convert(theirs: dict[str, np.ndarray]) -> dict[str, Any]:
    ours: dict[str, Any] = {stage: {} for stage, _ in _CONVOLUTIONS}

    def convolution(name: str) -> dict[str, np.ndarray]:
        kernel = theirs[f"{name}.conv.weight"].transpose(2, 3, 1, 0)
        return {"kernel": kernel, "bias": theirs[f"{name}.conv.bias"]}

    def slope(key: str) -> dict[str, np.ndarray]:
        return {"slope": theirs[key].reshape(())}

    for (stage, layer), name in _CONVOLUTIONS.items():
        ours[stage][layer] = {
            "conv": convolution(name),
            "prelu": slope(f"{name}.relu.weight"),
        }
    for i in (1, 2, 3):
        kernel = theirs[f"hl_prior_fc{i}.fc.weight"].T
        if i == 1:  # channels last
            kernel = kernel.reshape(*_POOLED, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)
        ours["head"][f"fc{i}"] = {"kernel": kernel, "bias": theirs[f"hl_prior_fc{i}.fc.bias"]}
        ours["head"][f"prelu{i}"] = slope(f"hl_prior_fc{i}.relu.weight")
    for layer, name in _FRACTIONALLY_STRIDED.items():
        # Theirs scatters with the kernel, ours gathers: flipped, and channels exchanged.
        kernel = theirs[f"{name}.weight"].transpose(2, 3, 0, 1)[::-1, ::-1]
        ours["decoder"][layer] = {"conv": {"kernel": kernel, "bias": theirs[f"{name}.bias"]}}
    for layer, name in _DECODER_SLOPES.items():
        ours["decoder"][layer] = slope(f"{name}.weight")
    ours["decoder"]["output"] = convolution(_OUTPUT)
    return ours
