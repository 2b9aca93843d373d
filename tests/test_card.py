"""Cards of weights files."""

import dataclasses
import hashlib
import json
import pathlib
import shlex
import shutil

import exports
import pytest

from cmtl_jax import config as base_config
from cmtl_jax.errors import UserError
from cmtl_jax.evaluation import report
from cmtl_jax.interop import card
from cmtl_jax.metrics import ImageMetrics


def metrics(step, weights="run", split="test", mae=12.34, **protocol):
    return {
        "mae": mae,
        "rmse": 45.6,
        "num_images": 60,
        "checkpoint_step": step,
        "stray": 3.25,
        "protocol": {
            "data set": "shanghaitech-part_b",
            "split": split,
            "weights": weights,
            "selection": "best MAE on the held-out ones",
            "trained on": "shanghaitech-part_b, preset recommended, model cmtl, seed 3",
        }
        | protocol,
    }


@pytest.fixture
def run(tmp_path):
    """Weights of a work folder, and a file of them."""
    folder = tmp_path / "run"
    weights = exports.trained()
    weights.config.update(name="shb", seed=3)
    weights.config.crop.height = 112
    weights.config.model.up_maps = [16, 18]
    weights.config.dataset.raw_dir = str(tmp_path)
    weights.about.update(data="shanghaitech-part_b", program="cmtl_jax 0.1.0, commit abc")
    for name, content in {
        "shanghaitech-part_b-test": metrics(exports.STEP),
        "shanghaitech-part_b-val": metrics(exports.STEP - 1, split="val", mae=1.5),
        "shanghaitech-part_b-test-from-x.h5": metrics(exports.STEP, weights="x.h5", mae=2.5),
        "shanghaitech-part_b-test-with-sha": metrics(
            exports.STEP, mae=3.5, **{"weights where people stand close": "sha"}
        ),
    }.items():
        (folder / "eval" / name).mkdir(parents=True)
        (folder / "eval" / name / "metrics.json").write_text(json.dumps(content))
        report.write_per_image_csv(
            folder / "eval" / name / "per_image.csv",
            [
                ImageMetrics("a", 20, 22.0, None, None, ()),
                ImageMetrics("b", 22, 18.0, None, None, ()),
                ImageMetrics("c", 300, 210.0, None, None, ()),
            ],
        )
    lines = [
        {"step": step, "val/mae": mae, "val/rmse": 99.9, "val/num_images": 40.0}
        for step, mae in ((exports.STEP - 1, 70.1), (exports.STEP, 65.4))
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    file = tmp_path / "shb.safetensors"
    file.write_bytes(b"weights")
    return dataclasses.replace(weights, source=str(folder)), file


def test_all_data_that_was_trained_on_is_cited(run, tmp_path):
    weights, file = run
    weights.about.update(data="ucf_cc_50-fold_1, shanghaitech-part_a, empty_scenes")
    card.write(tmp_path / "ucf.md", weights, file)
    text = (tmp_path / "ucf.md").read_text()
    for authors in ("V. A. Sindagi", "H. Idrees", "Y. Zhang"):
        assert text.count(f"- {authors}") == 1, authors


def test_what_a_card_says(run, tmp_path):
    weights, file = run
    card.write(tmp_path / "shb.md", weights, file)
    text = (tmp_path / "shb.md").read_text()
    assert text.startswith("# shb.safetensors\n")
    assert hashlib.sha256(b"weights").hexdigest() in text
    assert "`" + "0" * 64 + "`" in text  # training pictures
    for part in (
        "| preset | recommended |", "| seed | 3 |", f"| checkpoint | step {exports.STEP} of 20000",
        "| program | cmtl_jax 0.1.0, commit abc |", "(value - 113) / 64", "## Limits",
        "Zhang", "Sindagi", "- selection: best MAE on the held-out ones",
    ):  # fmt: skip
        assert part in text, part
    assert str(tmp_path) not in text
    assert "\n\n\n" not in text


def test_the_figures_are_of_these_weights(run):
    """Neither of another step, nor of other weights that were evaluated there, alone or beside."""
    text = card.text(*run)
    assert "| shanghaitech-part_b, test | 60 | 12.3 | 45.6 | 7 |" in text
    assert " 1.5 " not in text and " 2.5 " not in text
    assert " 3.5 " not in text and "stand close" not in text
    assert "On the 40 held-out" in text and "MAE 65.4, RMSE 99.9" in text


@pytest.mark.parametrize(
    "folder, weights",
    [
        ("test-from-a+run", "runs/a,runs/run"),
        ("test-from-run", "elsewhere/run"),
    ],
)
def test_figures_of_other_weights_are_not_cited(run, folder, weights):
    """Not even of a mean with these, or of a folder of the same name."""
    folder = pathlib.Path(run[0].source) / "eval" / folder
    before = card.text(*run)
    shutil.copytree(folder.with_name("shanghaitech-part_b-test"), folder)
    (folder / "metrics.json").write_text(json.dumps(metrics(exports.STEP, weights, mae=3.5)))
    assert card.text(*run) == before


def test_figures_of_two_weights_together_are_not_cited(run):
    path = pathlib.Path(run[0].source) / "eval/shanghaitech-part_b-test/metrics.json"
    together = metrics(exports.STEP)
    together["protocol"]["weights where people stand close"] = "sha"
    path.write_text(json.dumps(together))
    assert "Not evaluated on test pictures" in card.text(*run)


def test_figures_in_the_work_folder_of_the_export(run, tmp_path):
    weights, file = run
    elsewhere = {
        "own": (weights.source, 8.5),
        "other": (str(tmp_path / "other/run"), 9.5),
    }
    for name, (source, mae) in elsewhere.items():
        folder = tmp_path / "out" / name / "eval/shanghaitech-part_b-test"
        shutil.copytree(pathlib.Path(weights.source) / "eval" / folder.name, folder)
        content = metrics(exports.STEP, source, mae=mae)
        (folder / "metrics.json").write_text(json.dumps(content))
    assert "| 60 | 8.5 |" in card.text(weights, file, tmp_path / "out/own")
    assert "| 60 | 12.3 |" in card.text(weights, file, tmp_path / "out/other")


def test_without_any_evaluation(run, tmp_path):
    weights, file = run
    text = card.text(dataclasses.replace(weights, source=str(tmp_path / "none")), file)
    assert "Not evaluated on test pictures" in text and "held-out" not in text


def test_the_command_trains_that_config_again(run):
    """Read as the command line reads it."""
    weights, _ = run
    command = card.command(weights.config)
    assert command.startswith("python -m cmtl_jax.main --config=configs/shb.py:recommended ")
    assert sorted(shlex.split(command)[4:]) == [
        "--config.crop.height=112", "--config.model.up_maps=(16, 18)", "--config.seed=3"
    ]  # fmt: skip


def test_the_command_holds_no_folders_and_is_one_of_a_shell(run):
    weights, _ = run
    weights.config.dataset.update(
        extra="/elsewhere/our pictures/, textures", leave_out="IMG_1,our pictures/2 $HOME.jpg"
    )
    weights.config.train.steps = 7
    command = card.command(weights.config)
    assert "/elsewhere" not in command and " --config.train.steps=7" in command
    assert {
        "--config.dataset.extra=our pictures,textures",
        "--config.dataset.leave_out=IMG_1,our pictures/2 $HOME.jpg",
    } < set(shlex.split(command))
    assert "'IMG_1,our pictures/2 $HOME.jpg'" in command  # where a shell puts nothing in its place
    weights.config.dataset.update(extra="empty_scenes,textures")
    assert " --config.dataset.extra=empty_scenes,textures" in card.command(weights.config)


def test_pictures_of_ones_own(run):
    weights, file = run
    weights.about["data"] = "point_folder-mine"
    text = card.text(weights, file)
    assert "To be filled in by whoever passes it on" in text and "Zhang" not in text


def test_released_weights(tmp_path):
    weights = exports.released(tmp_path / "mcnn.h5")
    text = card.text(weights, tmp_path / "mcnn.h5")
    assert "come from a released file" in text and "--config=" not in text
    assert "resized (bilinear)" in text and "Zhang" in text
    assert "\n\n\n" not in text


def test_every_preset_has_a_short_command():
    for preset in base_config.PRESETS:
        config = base_config.base()
        config.name = "sha"
        base_config.apply_preset(config, preset)
        expected = f"python -m cmtl_jax.main --config=configs/sha.py:{preset}"
        assert card.command(config) == expected


def test_errors_are_told_by_the_number_of_people(run):
    text = card.text(*run)
    assert "| 11–25 | 2 | 21.0 | 3.0 | -1.0 |" in text
    assert "| 251–500 | 1 | 300.0 | 90.0 | -90.0 |" in text
    assert "without a head): 3.2 people a picture" in text
    weights, file = run
    (pathlib.Path(weights.source) / "eval/shanghaitech-part_b-test/per_image.csv").write_text("id")
    assert "| 11" not in card.text(weights, file)  # no picture, no row
    (pathlib.Path(weights.source) / "eval/shanghaitech-part_b-test/per_image.csv").unlink()
    with pytest.raises(UserError, match="per_image.csv is missing or damaged.*--mode=eval"):
        card.text(weights, file)
