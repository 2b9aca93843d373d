"""A data set in one file: small, and a raw folder again once it is unpacked."""

import io
import zipfile

import numpy as np
import pytest
import scipy.io
from PIL import Image

from cmtl_jax import config as base_config
from cmtl_jax import pictures
from cmtl_jax.datasets import pack, prepare
from cmtl_jax.errors import UserError
from cmtl_jax.input_pipeline import data


def colourful(height=64, width=80, seed=0):
    """Smooth colours with texture, as photographs have."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 20
    waves = np.stack([np.sin(y + x), np.cos(2 * y - x), np.sin(x)], -1) * 70 + 128
    return np.clip(waves + rng.normal(0, 15, waves.shape), 0, 255).astype(np.uint8)


def encoded(pixels, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("quality", [60, 75, 92])
def test_jpeg_keeps_its_grey_levels(quality):
    before = encoded(colourful(), "JPEG", quality=quality)
    after = pack.grey(before, "a.jpg")
    assert len(after) < 0.9 * len(before)
    difference = pictures.decode(after, "a.jpg").astype(int) - pictures.decode(before, "a.jpg")
    assert np.abs(difference).mean() < 0.1 and np.abs(difference).max() <= 4


def test_png_keeps_its_grey_levels_exactly():
    before = encoded(colourful(), "PNG")
    after = pack.grey(before, "a.png")
    assert len(after) < len(before)
    assert np.array_equal(pictures.decode(after, "a.png"), pictures.decode(before, "a.png"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_turned_pictures_stay_upright(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    before = encoded(colourful(), kind, exif=exif)
    after = pictures.decode(pack.grey(before, "a"), "a").astype(int)
    assert after.shape == (80, 64, 1)
    assert np.abs(after - pictures.decode(before, "a")).mean() < 0.2


def test_other_formats_and_what_would_grow_stay():
    gif = encoded(colourful()[..., 0], "GIF")
    assert pack.grey(gif, "a.gif") == gif
    once = pack.grey(encoded(colourful(), "JPEG"), "a.jpg")
    assert len(pack.grey(once, "a.jpg")) <= len(once)


def test_damaged_picture_is_named():
    with pytest.raises(UserError, match=r"broken\.jpg"):
        pack.grey(encoded(colourful(), "JPEG")[:300], "broken.jpg")


@pytest.fixture
def raw(tmp_path):
    """Part A with three training pictures and one for the test."""
    for split, count in (("train_data", 3), ("test_data", 1)):
        folder = tmp_path / "raw" / "part_A_final" / split
        (folder / "images").mkdir(parents=True)
        (folder / "ground_truth").mkdir()
        for n in range(1, count + 1):
            (folder / "images" / f"IMG_{n}.jpg").write_bytes(
                encoded(colourful(seed=n), "JPEG", quality=80)
            )
            points = np.random.default_rng(n).uniform(2, 60, (4 + n, 2))
            info = np.empty((1, 1), object)
            info[0, 0] = np.array([[(points, len(points))]], [("location", "O"), ("number", "O")])
            path = folder / "ground_truth" / f"GT_IMG_{n}.mat"
            scipy.io.savemat(path, {"image_info": info})
    return tmp_path / "raw"


def sha(raw):
    config = base_config.base()
    config.name = "sha"
    config.dataset.name = "shanghaitech"
    config.dataset.options.part = "part_a"
    config.dataset.raw_dir = str(raw)
    return config


def test_unpacked_it_is_the_data_set(raw, tmp_path):
    path = data.pack_data(sha(raw), tmp_path / "work")
    assert path == tmp_path / "work" / "pack" / "sha.zip"
    zipfile.ZipFile(path).extractall(tmp_path / "unpacked")
    before, after = (
        prepare.prepare(
            "shanghaitech", raw_dir=folder, tfds_dir=tmp_path / f"tfds-{folder.name}",
            options={"part": "part_a"},
        )
        for folder in (raw, tmp_path / "unpacked")
    )  # fmt: skip
    assert list(after.splits) == ["train", "test"]
    for split in before.splits:
        assert before.splits[split].index == after.splits[split].index
        for one, other in zip(before.splits[split], after.splits[split], strict=True):
            assert np.array_equal(one.points, other.points)
            grey = [pictures.decode(r.image_bytes, r.id).astype(int) for r in (one, other)]
            assert np.abs(grey[0] - grey[1]).mean() < 0.1


def test_same_data_same_bytes_and_the_test_split_can_stay(raw, tmp_path):
    config = sha(raw)
    first, second = (data.pack_data(config, tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    config.eval.split = "val"
    small = data.pack_data(config, tmp_path / "c")
    names = zipfile.ZipFile(small).namelist()
    assert len(names) == 6 and all("train_data" in name for name in names)


def test_with_colours_the_pictures_are_the_same_files(raw, tmp_path):
    config = sha(raw)
    config.input.channels = 3
    archive = zipfile.ZipFile(data.pack_data(config, tmp_path / "work"))
    files = [path for path in raw.rglob("*") if path.is_file()]
    assert len(archive.namelist()) == len(files) == 8
    for path in files:
        assert archive.read(path.relative_to(raw).as_posix()) == path.read_bytes()
    picture = raw / "part_A_final/train_data/images/IMG_2.jpg"
    picture.write_bytes(picture.read_bytes()[:300])
    with pytest.raises(UserError, match="IMG_2"):
        data.pack_data(config, tmp_path / "damaged")


def test_what_cannot_be_packed(raw, tmp_path):
    with pytest.raises(UserError, match="nothing to pack"):
        pack.pack("synthetic", tmp_path / "s.zip")
    with pytest.raises(UserError, match="no such|has the splits"):
        pack.pack("shanghaitech", tmp_path / "s.zip", raw, {"part": "part_a"}, ["val"])


def test_an_interrupted_pack_leaves_the_one_before(raw, tmp_path):
    path = data.pack_data(sha(raw), tmp_path / "work")
    before = path.read_bytes()
    damaged = raw / "part_A_final" / "train_data" / "images" / "IMG_2.jpg"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(UserError, match="IMG_2"):
        data.pack_data(sha(raw), tmp_path / "work")
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["sha.zip"]
