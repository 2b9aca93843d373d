"""The page of presets says what the presets are, and each key of theirs has its row."""

import importlib.util
import pathlib
import re

import pytest

from cmtl_jax import config as base_config
from cmtl_jax.input_pipeline.crops import CropRule

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs/presets.md"
NAMES = base_config.PRESETS


def rows():
    """Key -> the value in each preset's column."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        match = re.match(r"\| `([a-z_.0-9]+)` \|" + r" `([^`]*)`(?: \*)? \|" * len(NAMES), line)
        if match:
            key, *values = match.groups()
            assert key not in found, f"two rows for {key}"
            found[key] = values
    return found


def flat(tree, before=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def configured(file, name):
    spec = importlib.util.spec_from_file_location(file, ROOT / f"configs/{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(name)


def preset(name, file="sha"):
    return dict(flat(configured(file, name).to_dict()))


def test_each_row_says_what_each_preset_takes():
    presets = [preset(name) for name in NAMES]
    assert len(rows()) > 40
    for key, written in rows().items():
        assert written == [str(values[key]) for values in presets], key


def test_no_key_in_which_presets_differ_is_left_out():
    recommended, *others = (preset(name) for name in NAMES)
    differing = {
        key for other in others for key in other
        if other[key] != recommended[key] and key not in ("preset", "train.eval_every")
    }  # fmt: skip
    assert differing <= rows().keys()


@pytest.mark.parametrize("file, part", [("shb", "part B"), ("ucf_cc_50", "UCF_CC_50")])
def test_what_c3_takes_for_other_data_sets_is_said(file, part):
    here, usual = preset("c3", file), preset("c3")
    lines = {
        key: next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{key}`"))
        for key in here
        if here[key] != usual.get(key) and not key.startswith(("dataset.", "name", "train.eval"))
    }
    assert len(lines) > 3
    lines["input.std"] = lines["input.mean"]  # said together
    for key, line in lines.items():
        said = re.search(rf"{part}:? (.*?)(, for| \|)", line)[1]
        assert f"{here[key]:,}" in said.split(", "), key


@pytest.mark.parametrize("name", ["sha", "shb", "ucf_cc_50", "point_folder", "synthetic"])
@pytest.mark.parametrize("chosen", NAMES)
def test_every_config_has_every_preset(name, chosen):
    config = configured(name, chosen)
    assert config.preset == chosen
    base_config.validate(config)


def test_c3_is_what_that_framework_does():
    c3 = preset("c3")
    reference = preset("reference")
    as_in_the_released_code = (
        "model.", "density.", "groups.count", "groups.class_weights", "loss.group", "optimizer.b",
        "optimizer.learning_rate", "loss.density_reduction",
    )  # fmt: skip
    for key, value in c3.items():
        if key.startswith(as_in_the_released_code):
            assert value == reference[key], key
    assert c3["input.channels"] == 3 and c3["groups.binning"] == "c3"
    assert c3["loss.density_scale"] == 100 and c3["optimizer.weight_decay"] == 1e-4
    assert (c3["augment.flip"], c3["augment.noise"]) == (0.5, 0)  # flips alone
    whole = CropRule(c3["crop.mode"], c3["crop.height"], c3["crop.width"])
    assert whole.size(768, 1024) == (768, 1024) and whole.size(1024, 600) == (1024, 600)
    for file, pictures, epochs in (("sha", 300, 1000), ("shb", 400, 1000), ("ucf_cc_50", 40, 1000)):
        values = preset("c3", file)  # what does not fill a batch is left out of an epoch
        assert values["train.steps"] == epochs * (pictures // values["train.batch_size"])
