"""The page of presets says what the presets are, and each key of theirs has its row."""

import importlib.util
import pathlib
import re

import pytest

from cmtl_jax import config as base_config

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs/presets.md"
NAMES = ("recommended", "paper", "reference")


def rows():
    """Key -> the value in each preset's column."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        match = re.match(r"\| `([a-z_.0-9]+)` \|" + r" `([^`]*)`(?: \*)? \|" * 3, line)
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


def preset(name):
    path = ROOT / "configs/sha.py"
    spec = importlib.util.spec_from_file_location("sha", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(flat(module.get_config(name).to_dict()))


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


@pytest.mark.parametrize("name", ["sha", "shb", "ucf_cc_50", "point_folder", "synthetic"])
@pytest.mark.parametrize("chosen", NAMES)
def test_every_config_has_every_preset(name, chosen):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"configs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(chosen)
    assert config.preset == chosen
    base_config.validate(config)
