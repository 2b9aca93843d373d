"""What exported files say of themselves: what they want to see and give, where they come from."""

import dataclasses
from typing import Any

import ml_collections

from cmtl_jax import trained_model, version, weight_average
from cmtl_jax.input_pipeline import extra_pictures
from cmtl_jax.input_pipeline.seen import Seen, again_text
from cmtl_jax.trained_model import TrainedModel

LIMITS = (
    "Counts are estimates. They are worst where pictures differ from those of the training: heads "
    "much smaller or larger, other cameras and weather, crowds denser than any seen, things that "
    "look like heads. A picture without people may still get a small count. Not made for counting "
    "or following single persons, nor for decisions about safety without a human check."
)

MODELS = {
    "cmtl": "V. A. Sindagi, V. M. Patel. CNN-based cascaded multi-task learning of high-level "
    "prior and density estimation for crowd counting. AVSS 2017.",
    "mcnn": "Y. Zhang, D. Zhou, S. Chen, S. Gao, Y. Ma. Single-image crowd counting via "
    "multi-column convolutional neural network. CVPR 2016.",
}

_DATA = {
    "shanghaitech": MODELS["mcnn"],
    "ucf_cc_50": "H. Idrees, I. Saleemi, C. Seibert, M. Shah. Multi-source multi-scale counting in "
    "extremely dense crowd images. CVPR 2013.",
}

_GREY = (
    "the luma that a JPEG file stores, else 0.299 R + 0.587 G + 0.114 B, as Pillow's mode L and "
    "OpenCV's IMREAD_GRAYSCALE give it"
)


def citations(trained: TrainedModel) -> list[str]:
    """Papers of the network and of the pictures it was trained on, where these are known."""
    model = "mcnn" if trained.config.model.name == "mcnn" else "cmtl"
    papers = [MODELS[model]]
    data = [one.strip() for one in trained.about["data"].split(",")]  # the extra ones follow
    papers += [
        text for name, text in _DATA.items() if any(one.startswith(name) for one in data)
    ]
    return list(dict.fromkeys(papers))


def of_weights(trained: TrainedModel) -> dict[str, Any]:
    """What belongs to the weights wherever they go: config, count groups, origin, step or steps.

    A work folder's checkpoint says the same, but for the folders of the machine it comes from.
    """
    config = _portable(trained.config)
    about = {
        "config": config.to_dict(),
        "groups": trained.groups.to_json(),
        "program": trained.about.get("program", "not known"),
        "data": trained.about["data"],
        "train_ids_sha256": trained.about["train_ids_sha256"],
        "head_spacing": trained.about.get("head_spacing"),
        "step": trained.step,
    }
    if weight_average.is_one(trained):
        runs = [
            dataclasses.replace(run, config=_portable(run.config))
            for run in weight_average.runs(trained)
        ]
        about[weight_average.ABOUT] = weight_average.said(runs, config)
    return about


def _portable(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A config without the folders of this machine."""
    config = config.copy_and_resolve_references()
    config.init_from = config.dataset.raw_dir = config.dataset.tfds_dir = ""
    config.dataset.extra = ",".join(extra_pictures.titles(config.dataset))
    return config


def describe(trained: TrainedModel) -> dict[str, Any]:
    """Texts and numbers by name, for JSON; no folder of this machine is in it.

    The texts are true of a file that takes whole pictures of grey levels or colours 0..255 and
    itself normalises, pads or resizes them.
    """
    c, i = trained.config, trained.config.input
    return {
        "what": "counts people in pictures of crowds: a density map and its sum",
        "preprocessing": _preprocessing(trained),
        "density": "people per pixel, at the size of the picture given; never negative",
        "count": "sum of the density map, people",
        "model": c.model.name,
        "weights": trained_model.short_name(trained.source),
        "step": trained.step,
        "mean_of": weight_average.text(trained),  # empty where they are of one run
        "trained_on": trained.about["data"],
        "training_pictures_sha256": trained.about["train_ids_sha256"],
        "trained_by": trained.about.get("program", "not known"),
        "exported_by": version.describe(),
        "input_channels": i.channels,
        "seen": Seen.of(i).text(),
        "second_look": again_text(i),  # which a program that is the network alone does not take
        "input_scale": float(i.scale),
        "input_contrast": float(i.contrast),
        "input_detail": float(i.detail),
        "input_resize": i.resize,
        "input_mean": float(i.mean),
        "input_std": float(i.std),
        "density_scale": float(c.loss.density_scale),
        "limits": LIMITS,
        "cite": citations(trained),
    }


def _preprocessing(trained: TrainedModel) -> str:
    i = trained.config.input
    values = f"grey levels ({_GREY})" if i.channels == 1 else "colours (red, green, blue)"
    parts = [f"give {values}, 0..255, uint8, upright; do not divide or subtract anything"]
    if (i.mean, i.std) != (0, 1):
        parts[0] += f": (value - {i.mean:g}) / {i.std:g} is done inside"
    if i.contrast or i.detail:
        parts.insert(
            0,
            f"bring pictures to contrast {i.contrast:g} and detail {i.detail:g} (0: as they are), "
            "as docs/export.md of cmtl_jax shows",
        )
    if i.scale != 1:
        how = "area averages" if i.scale < 1 else "bicubic"
        parts.insert(
            0, f"first resize both sides to {i.scale:g} times their length, rounded ({how})"
        )
    if i.resize == "multiple_of_4":
        parts.append(
            "pictures are resized inside (bilinear) to the next lower multiples of 4, as the "
            "authors' test code does, and their density maps are brought back, each with its sum"
        )
    return "; ".join(parts)
