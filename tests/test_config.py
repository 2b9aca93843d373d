"""The base configuration, its presets, and what is said of a slip in a key or value."""

import pathlib

import ml_collections
import pytest
from work_folders import CommandLine, only_error

from cmtl_jax import config as base_config
from cmtl_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
SYNTHETIC = ROOT / "configs/synthetic.py"


@pytest.fixture
def main(monkeypatch, capfd):
    command = CommandLine(monkeypatch, capfd)
    return lambda *arguments: command(*arguments, parse_only=True)


def configured(preset="recommended", **sections):
    config = base_config.base()
    config.dataset.name = "synthetic"
    base_config.apply_preset(config, preset)
    for section, values in sections.items():
        config[section].update(values)
    return config


@pytest.mark.parametrize("preset", base_config.PRESETS)
@pytest.mark.parametrize("file", sorted(path.stem for path in (ROOT / "configs").glob("*.py")))
def test_every_config_and_preset_is_valid(main, file, preset):
    assert main(f"--config={ROOT}/configs/{file}.py:{preset}") == (0, "", "")


def test_presets_are_the_letter_of_paper_and_released_code():
    paper, reference = configured("paper"), configured("reference")
    for config in (paper, reference):
        assert config.optimizer.learning_rate == 1e-5
        assert config.loss.group_weight == 1e-4
        assert config.train.batch_size == 1
    assert paper.model.prior_pool == "spp" and tuple(paper.model.up_maps) == (16, 18)
    assert (paper.crop.mode, paper.crop.stored, paper.augment.when) == ("quarter", 300, "stored")
    assert (paper.groups.count, paper.dataset.val_split) == ("points", "stratified")
    assert (reference.crop.mode, reference.crop.stored) == ("released", 9)
    assert (reference.crop.range, reference.augment.when) == ("released", "online")
    assert (reference.groups.count, reference.dataset.val_split) == ("density", "released")
    assert reference.dataset.validate_on == "patches" and not reference.augment.clip
    assert paper.loss.density_reduction == "sum"
    assert reference.model.prior_pool == "adaptive_max"
    assert reference.loss.density_reduction == "mean"
    assert tuple(reference.model.up_maps) == (16, 8)
    assert configured(None).preset == "recommended"


def test_a_saved_config_is_valid_again():
    """JSON knows no tuples."""
    import json

    saved = json.loads(json.dumps(configured().to_dict()))
    base_config.validate(ml_collections.ConfigDict(saved))


def test_good_overrides_are_taken(main):
    good = [
        "--config.crop.height=64", "--config.model.up_maps=(16,18)", "--config.optimizer.eps=1",
        "--noconfig.train.stop_on_dead", "--config.train.stop_on_dead=false", "--mode=eval",
        "--config.eval.checkpoint=70", "--config.dataset.options.num_train=3",
        "--config.dataset.options.height=(48,64)", "--workdir=x",
    ]  # fmt: skip
    assert main(f"--config={SYNTHETIC}", *good) == (0, "", "")
    assert main("--config", SYNTHETIC, "--config.seed", "3") == (0, "", "")
    assert main("-config", f"{SYNTHETIC}:paper") == (0, "", "")


@pytest.mark.parametrize(
    "argument, parts",
    [
        ("--config.optimzer.lr=1", ["config.optimzer.lr", "mean config.optimizer?"]),
        ("--config.optimizer.lr=1", ["config.optimizer.lr", "config.optimizer.learning_rate"]),
        ("--config.crop.hight=3", ["config.crop.hight", "did you mean config.crop.height?"]),
        ("--config.sead=3", ["config.sead", "did you mean config.seed?"]),
        ("--noconfig.train.stop_dead", ["train.stop_dead", "config.train.stop_on_dead"]),
        ("--config.seed.x=3", ["config.seed.x", "config.seed is a value"]),
        ("--config.dataset.options.num_trian=3", ["num_trian", "num_train"]),
        ("--config.input.looks=(0.35,0)", ["config.input.looks", "greater than 0, such as (0.35,"]),
        ("--config.crop.mode=foo", ["config.crop.mode", "'foo'", "fixed, quarter"]),
        ("--config.crop.mode=quater", ["did you mean quarter?"]),
        ("--config.augment.when=stored", ["config.crop.stored is 0", "a multiple of 3"]),
        ("--config.dataset.validate_on=patches", ["config.crop.stored is 0", "at least 1"]),
        ("--config.train.steps=abc", ["config.train.steps=abc", "a whole number"]),
        ("--config.train.steps=1.5", ["config.train.steps=1.5", "a whole number"]),
        ("--config.train.steps=0", ["config.train.steps is 0", "at least 1"]),
        ("--config.train.stop_on_dead=maybe", ["stop_on_dead", "maybe", "true or false"]),
        ("--config.augment.flip=x", ["config.augment.flip=x", "a number"]),
        ("--config.augment.flip=1.5", ["config.augment.flip is 1.5", "between 0 and 1"]),
        ("--config.augment.noise_level=-1", ["config.augment.noise_level", "at least 0"]),
        ("--config.optimizer.learning_rate=nan", ["learning_rate is nan", "finite"]),
        ("--config.optimizer.learning_rate=inf", ["learning_rate is inf", "finite"]),
        ("--config.optimizer.ema=1", ["config.optimizer.ema is 1.0", "below 1"]),
        ("--config.dataset.val_fraction=1", ["config.dataset.val_fraction", "below 1"]),
        ("--config.density.kernel=14", ["config.density.kernel is 14", "odd"]),
        ("--config.model.up_maps=(16,8,3)", ["config.model.up_maps", "two numbers"]),
        ("--config.model.up_maps=(a,b)", ["config.model.up_maps"]),
        ("--config.model.spp_levels=(0,2)", ["config.model.spp_levels", "from 1 on"]),
        ("--config.input.channels=2", ["config.input.channels is 2", "1, 3"]),
        ("--config.seed=-1", ["config.seed is -1", "at least 0"]),
        ("--config.eval.checkpoint=bset", ["config.eval.checkpoint", "best, latest or a step"]),
        ("--config.train=3", ["config.train=3", "key by key"]),
        ("--unknown=3", ["unknown"]),
        ("--confg=3", ["confg", "config"]),
        ("--mode=foo", ["--mode=foo", "train|eval"]),
        ("configs/sha.py", ["configs/sha.py", "--NAME=VALUE"]),
        ("--workdir", ["--workdir"]),
    ],
)
def test_a_slip_is_one_line_that_names_it(main, argument, parts):
    status, out, err = main(f"--config={SYNTHETIC}", argument)
    assert (status, out) == (1, "")
    line = only_error(err)
    assert err == line + "\n"
    assert all(part in line for part in parts), line


def test_folds_are_one_to_five_or_all(main):
    config = f"--config={ROOT}/configs/ucf_cc_50.py"
    assert main(config, "--config.dataset.fold=5")[0] == main(config)[0] == 0
    status, _, err = main(config, "--config.dataset.fold=6")
    assert status == 1 and "config.dataset.fold is 6" in only_error(err)


def test_unknown_preset_and_missing_files(main, tmp_path, monkeypatch):
    status, _, err = main(f"--config={SYNTHETIC}:papr")
    assert status == 1 and "recommended, paper, reference" in only_error(err)
    status, _, err = main(f"--config={ROOT}/configs/synthtic.py")
    assert status == 1 and "synthtic.py; did you mean" in only_error(err)
    assert "synthetic.py?" in err
    status, _, err = main(f"--config={tmp_path}/none/a.py", "--config.seed=3")
    assert status == 1 and f"no config file {tmp_path}/none/a.py" in only_error(err)
    monkeypatch.chdir(tmp_path)
    for arguments in ((), ("--config=",), ("--config",), ("--config=.",)):
        status, _, err = main(*arguments)
        assert status == 1 and "config" in only_error(err)


@pytest.mark.parametrize(
    "text, parts",
    [
        ("def get_config(:", ["SyntaxError"]),
        ("import no_such_module", ["no_such_module"]),
        ("x = 1", ["get_config"]),
        ("def get_config(preset=None): return None", ["ConfigDict"]),
        ("def get_config(preset=None): return 1 / 0", ["ZeroDivisionError"]),
        (
            "from cmtl_jax import config\n"
            "def get_config(preset=None):\n"
            "    c = config.base()\n"
            "    c.dataset.name = 'synthetic'\n"
            "    c.crop.hight = 3\n"
            "    return c\n",
            ["config.crop.hight", "did you mean config.crop.height?"],
        ),
        (
            "from cmtl_jax import config\n"
            "def get_config(preset=None):\n"
            "    c = config.base()\n"
            "    c.train.steps = 'many'\n"
            "    return c\n",
            ["steps"],
        ),
        (
            "import ml_collections\n"
            "def get_config(preset=None):\n"
            "    return ml_collections.ConfigDict({'seed': 3})\n",
            ["is missing"],
        ),
    ],
)
def test_a_wrong_config_file_is_one_line(main, tmp_path, text, parts):
    (tmp_path / "mine.py").write_text(text)
    status, out, err = main(f"--config={tmp_path}/mine.py")
    assert (status, out) == (1, "")
    line = only_error(err)
    assert all(part in line for part in parts), line


def test_validate_wants_the_kinds_of_the_defaults():
    for key, value in (("steps", None), ("steps", "9"), ("steps", True), ("stop_on_dead", 1)):
        config = configured()
        with config.train.ignore_type():
            config.train[key] = value
        with pytest.raises(UserError, match=rf"config\.train\.{key} is .*; it must be"):
            base_config.validate(config)
    base_config.validate(configured(augment={"flip": 1.0}))


def test_default_work_folder_names_config_preset_and_fold():
    config = configured("paper")
    config.name = "ucf_cc_50"
    assert base_config.default_workdir(config) == pathlib.Path("runs/ucf_cc_50-paper")
    config.dataset.fold = 2
    assert base_config.default_workdir(config) == pathlib.Path("runs/ucf_cc_50-paper-fold_2")


def test_without_a_clone_the_configs_of_the_package_are_used(tmp_path, monkeypatch):
    (tmp_path / "package/configs").mkdir(parents=True)
    packaged = tmp_path / "package/configs/sha.py"
    packaged.write_text("")
    monkeypatch.setattr(base_config, "__file__", str(packaged.parent.parent / "config.py"))
    monkeypatch.chdir(tmp_path)
    here = "configs/sha.py"
    asked = ["main", f"--config={here}:paper", "--config", here, here]
    assert base_config.with_packaged(asked) == [
        "main", f"--config={packaged}:paper", "--config", str(packaged), here
    ]  # fmt: skip
    missing = ["main", "--config=configs/none.py", "--config.name=configs/sha.py"]
    assert base_config.with_packaged(missing) == missing
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/sha.py").write_text("")
    assert base_config.with_packaged(asked) == asked  # a file of the user's own comes first
