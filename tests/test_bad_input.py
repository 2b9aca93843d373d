"""Bad input ends with one line that names the file; odd but valid input goes all the way."""

import json
import pathlib

import numpy as np
import pytest
import scipy.io
from PIL import Image
from work_folders import CommandLine, kept_logging, only_error, untrained

from cmtl_jax import predict

POINT_FOLDER = "--config=configs/point_folder.py"
TINY = (
    "--config.crop.height=32", "--config.crop.width=32", "--config.train.batch_size=4",
    "--config.train.steps=2", "--config.train.eval_every=2", "--config.groups.samples=2",
    "--config.model.name=single_stage",  # half the time to compile
)  # fmt: skip


@pytest.fixture(autouse=True)
def _logging():
    with kept_logging():
        yield


@pytest.fixture
def main(monkeypatch, capfd):
    monkeypatch.chdir(pathlib.Path(__file__).parent.parent)
    return CommandLine(monkeypatch, capfd)


def draw(path, height=48, width=64):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(height).integers(0, 256, (height, width), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def raw(tmp_path):
    """Three good pictures with points."""
    for i in range(3):
        path = draw(tmp_path / f"raw/{i}.jpg")
        path.with_suffix(".csv").write_text("x,y\n3,4\n60,40\n")
    return tmp_path / "raw"


@pytest.fixture
def prepare(main, raw, tmp_path):
    """The error of a training that must not get further than its preparation."""

    def call(raw_dir=raw, config=POINT_FOLDER, *more):
        tfds, workdir = tmp_path / "tfds", tmp_path / "work"
        status, out, err = main(
            config, f"--config.dataset.raw_dir={raw_dir}", f"--config.dataset.tfds_dir={tfds}",
            f"--workdir={workdir}", *more,
        )  # fmt: skip
        assert (status, out) == (1, "")
        assert not list(tfds.rglob("*.array_record*"))  # nothing that looks prepared
        assert not list(tfds.rglob("metadata.json"))
        assert not (workdir / "checkpoints").exists()
        return only_error(err)

    return call


@pytest.mark.parametrize("config", ["sha", "shb", "ucf_cc_50", "point_folder"])
def test_missing_data_set(prepare, tmp_path, config):
    line = prepare(tmp_path / "nowhere", f"--config=configs/{config}.py")
    assert str(tmp_path / "nowhere") in line
    assert "expected" in line and "--config.dataset.raw_dir=DIR" in line


def test_folder_without_annotated_pictures(prepare, raw):
    for path in raw.glob("*.csv"):
        path.unlink()
    line = prepare()
    assert str(raw) in line and "annotated" in line and "expected" in line


def test_truncated_picture(prepare, raw):
    data = (raw / "1.jpg").read_bytes()
    (raw / "1.jpg").write_bytes(data[: len(data) // 2])
    line = prepare()
    assert str(raw / "1.jpg") in line and "truncated" in line and "replace or remove" in line


def test_mat_without_points(prepare, raw):
    (raw / "1.csv").unlink()
    scipy.io.savemat(raw / "1.mat", {"other": np.zeros((2, 2))})
    line = prepare()
    assert str(raw / "1.mat") in line and "no head points" in line and "other" in line


def test_swapped_coordinates(prepare, raw):
    (raw / "1.csv").write_text("".join(f"{y},{x}\n" for x, y in [(50, 2), (62, 40), (60, 1)] * 2))
    line = prepare()
    assert str(raw / "1.csv") in line and "swapped" in line and "x first" in line


@pytest.mark.parametrize("kind", ["csv", "mat", "json"])
def test_points_that_are_not_finite(prepare, raw, kind):
    (raw / "1.csv").unlink()
    path = raw / f"1.{kind}"
    if kind == "mat":
        scipy.io.savemat(path, {"points": np.array([[1.0, 2.0], [np.nan, 3.0]])})
    else:
        path.write_text("x,y\n1,2\nnan,3\n" if kind == "csv" else "[[1, 2], [NaN, 3]]")
    line = prepare()
    assert str(path) in line and "not finite" in line and "correct" in line


def test_unknown_option_of_a_data_set(main, tmp_path):
    status, _, err = main(
        "--config=configs/sha.py", "--config.dataset.options.part=part_c", f"--workdir={tmp_path}"
    )
    assert status == 1 and "part_a, part_b" in only_error(err) and "part_c" in err


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_file_in_place_of_the_work_folder(main, tmp_path, mode):
    (tmp_path / "file").write_text("mine")
    for workdir in (tmp_path / "file", tmp_path / "file/deep"):
        status, out, err = main(
            "--config=configs/synthetic.py", f"--workdir={workdir}", f"--mode={mode}",
            f"--config.dataset.tfds_dir={tmp_path}/tfds",
        )  # fmt: skip
        assert (status, out) == (1, "")
        assert str(workdir) in only_error(err)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_in_place_of_the_prepared_data(main, raw, tmp_path):
    (tmp_path / "tfds").write_text("mine")
    status, _, err = main(
        POINT_FOLDER, f"--config.dataset.raw_dir={raw}", f"--workdir={tmp_path}/w",
        f"--config.dataset.tfds_dir={tmp_path}/tfds",
    )  # fmt: skip
    assert status == 1
    assert str(tmp_path / "tfds") in only_error(err) and "--config.dataset.tfds_dir" in err


def test_evaluation_without_a_checkpoint(main, tmp_path):
    status, _, err = main("--config=configs/synthetic.py", "--mode=eval", f"--workdir={tmp_path}")
    assert status == 1 and f"no checkpoints in {tmp_path}" in only_error(err)


def test_a_checkpoint_of_another_model_is_not_trained_on(main, raw, tmp_path):
    workdir = untrained(tmp_path / "w", name="single_stage")
    common = (
        POINT_FOLDER, *TINY[:-1], f"--config.dataset.raw_dir={raw}",
        f"--config.dataset.tfds_dir={tmp_path}/tfds",
    )  # fmt: skip
    status, _, err = main(*common, f"--workdir={workdir}")
    line = only_error(err)
    assert status == 1 and str(workdir) in line and "another model" in line
    assert (workdir / "checkpoints/3").is_dir()  # still there
    status, _, err = main(
        *common, f"--workdir={tmp_path}/new", f"--config.init_from={workdir}"
    )  # fmt: skip
    line = only_error(err)
    assert status == 1 and str(workdir) in line and "another model" in line


@pytest.mark.parametrize("what", ["about", "params"])
def test_a_damaged_checkpoint(raw, tmp_path, capfd, what):
    workdir = untrained(tmp_path / "w", name="single_stage")
    for path in (workdir / "checkpoints/3" / what).rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    assert predict.main([str(raw), f"--weights={workdir}"]) == 1
    out, err = capfd.readouterr()
    assert out == "" and str(workdir) in only_error(err)


def test_one_pixel_and_very_long_pictures_go_all_the_way(main, tmp_path, capfd):
    """Preparation, training, validation, evaluation and prediction."""
    raw, sizes = tmp_path / "raw", {"one": (1, 1), "long": (10, 8000), "tall": (200, 3)}
    for split in ("train", "test"):
        for i in range(2):
            draw(raw / split / f"{i}.png")
        for name, size in sizes.items():
            draw(raw / split / f"{name}.png", *size)
        table = {"0.png": [[5, 6], [50, 40]], "1.png": [], "one.png": [[0, 0]]}
        table |= {"long.png": [[7999, 9], [4000, 5], [0, 0]], "tall.png": [[1, 199]]}
        (raw / split / "points.json").write_text(json.dumps(table))
    workdir = tmp_path / "w"
    status, out, err = main(
        POINT_FOLDER, *TINY, f"--config.dataset.raw_dir={raw}", f"--workdir={workdir}",
        f"--config.dataset.tfds_dir={tmp_path}/tfds", "--config.dataset.val_fraction=0.3",
    )  # fmt: skip
    assert (status, out) == (0, ""), err
    metrics = json.loads((workdir / "eval/point_folder-test/metrics.json").read_text())
    assert metrics["num_images"] == 5 and np.isfinite(metrics["mae"])
    rows = (workdir / "eval/point_folder-test/per_image.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0]: int(row.split(",")[1]) for row in rows} == {
        "0.png": 2, "1.png": 0, "one.png": 1, "long.png": 3, "tall.png": 1,
    }  # fmt: skip
    assert predict.main(
        [str(raw / "test"), f"--weights={workdir}", f"--out={tmp_path / 'out'}"]
    ) == 0  # fmt: skip
    out, err = capfd.readouterr()
    counts = dict(line.split("\t") for line in out.splitlines())
    assert err == "" and len(counts) == 5
    predicted = {row.split(",")[0]: float(row.split(",")[2]) for row in rows}
    for name, count in predicted.items():  # both count alike
        assert float(counts[str(raw / "test" / name)]) == pytest.approx(count, abs=0.051)
    for name, size in sizes.items():
        density = np.load(tmp_path / f"out/{name}.density.npy")
        assert density.shape == size and np.isfinite(density).all()
