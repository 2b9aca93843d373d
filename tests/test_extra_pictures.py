"""Training pictures out of other data sets."""

import cv2
import numpy as np
import pytest

from cmtl_jax import config as base_config
from cmtl_jax.errors import UserError
from cmtl_jax.input_pipeline import data as data_lib
from cmtl_jax.input_pipeline import extra_pictures
from cmtl_jax.input_pipeline.loader import Shard


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six pictures with 1 to 6 people."""
    root = tmp_path_factory.mktemp("raw") / "mine"
    root.mkdir()
    for i in range(1, 7):
        cv2.imwrite(str(root / f"{i}.png"), np.full((40, 50), 20 * i, np.uint8))
        (root / f"{i}.csv").write_text("x,y\n" + "10,20\n" * i)
    return root


@pytest.fixture
def config(tmp_path, monkeypatch):
    empty = extra_pictures.SOURCES["empty_scenes"]
    few = empty._replace(options=empty.options | {"num_train": 10, "height": (40, 50)})
    monkeypatch.setitem(extra_pictures.SOURCES, "empty_scenes", few)
    config = base_config.base()
    config.dataset.name = "synthetic"
    config.dataset.options = {"num_train": 10, "num_test": 2}
    config.dataset.tfds_dir = str(tmp_path)
    return config


def ids(pictures):
    return [entry.id for entry in pictures.index]


def test_they_are_trained_on_and_nothing_else(config, folder):
    alone = data_lib.load(config)
    config.dataset.update(extra=f"{folder}, empty_scenes", repeat=2)
    data = data_lib.load(config)
    for split in ("val", "test"):
        assert ids(data.pictures(split)) == ids(alone.pictures(split))
    own = ids(alone.pictures("train"))
    found = ids(data.pictures("train"))
    assert found[: len(own) * 2] == own + own
    mine = [name for name in found if name.startswith("mine/")]
    empty = [name for name in found if name.startswith("empty_scenes/")]
    assert len(found) == 2 * len(own) + len(mine) + len(empty)
    # A tenth of each is held out, so that they can be validated on.
    assert len(set(mine)) == 5 and len(set(empty)) == 9
    own_run = base_config.base()
    own_run.dataset.update(name="point_folder", raw_dir=str(folder))
    own_run.dataset.tfds_dir = config.dataset.tfds_dir
    assert {f"mine/{name}" for name in ids(data_lib.load(own_run).pictures("train"))} == set(mine)

    train = data.pictures("train")
    picture = train[found.index(mine[0])]
    people = int(mine[0].removeprefix("mine/").removesuffix(".png"))
    assert picture.id == mine[0] and len(picture.points) == people
    assert (picture.image == 20 * people).all()
    assert not any(train.index[found.index(name)].count for name in empty)

    # What is evaluated are a data set's own pictures.
    assert ids(data_lib.load(config, training=False).pictures("train")) == own


def test_they_can_be_left_out(config, folder):
    config.dataset.extra = str(folder)
    name = next(n for n in ids(data_lib.load(config).pictures("train")) if n.startswith("mine/"))
    config.dataset.leave_out = name
    assert name not in ids(data_lib.load(config).pictures("train"))
    data_lib.load(config, training=False)


def test_batches_have_them(config, folder):
    config.dataset.extra = str(folder)
    config.crop.update(height=32, width=32)
    config.augment.update(noise=0.0, contrast=0.0, brightness=0.0, zoom=0.0)
    config.train.update(steps=32, batch_size=7)  # a round: each picture 16 times
    train = data_lib.load(config).pictures("train")
    groups = data_lib.fit_groups(config, train)
    stream = data_lib.training_stream(config, train, groups, start=0, shard=Shard(0, 1))
    crops = [
        image[:height, :width]
        for batch in stream
        for image, (height, width) in zip(batch.image, batch.size, strict=True)
    ]
    assert len(crops) == 16 * (9 + 5)
    assert sum(np.ptp(crop) == 0 for crop in crops) == 16 * 5  # drawn scenes are not in one grey


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (
            "shanghaitech-part_c",
            "names shanghaitech-part_c; it takes shanghaitech-part_a, .*folder",
        ),
        ("shanghaitech-part_b", "ShanghaiTech"),
    ],
)
def test_what_is_not_there(config, extra, says, tmp_path, monkeypatch):
    monkeypatch.setenv("CMTL_DATA_DIR", str(tmp_path / "none"))
    config.dataset.extra = extra
    with pytest.raises(UserError, match=says):
        data_lib.load(config)


def test_the_data_set_itself(config, folder):
    config.dataset.extra = "synthetic"
    with pytest.raises(UserError, match="which is the data set itself"):
        data_lib.load(config)
    config.dataset.options = {}
    config.dataset.update(name="point_folder", raw_dir=str(folder), extra=f"{folder}/")
    with pytest.raises(UserError, match="names mine, which is the data set itself"):
        data_lib.load(config)


def test_folders_of_one_name(config, folder):
    config.dataset.extra = f"{folder}, {folder.parent / 'other' / 'mine'}"
    with pytest.raises(UserError, match="names mine more than once.* rename folders of one name"):
        data_lib.load(config)
    data_lib.load(config, training=False)


def test_pictures_of_a_folder_are_known_to_have_been_trained_on(config, folder, monkeypatch):
    """As weights of a work folder name it, or as weights that went elsewhere do."""
    own_run = base_config.base()
    own_run.dataset.update(name="point_folder", raw_dir=str(folder), val_seed=1, val_fraction=0.5)
    own_run.dataset.tfds_dir = config.dataset.tfds_dir
    val = set(ids(data_lib.load(own_run).pictures("val")))
    left_out = min(val)
    config.dataset.update(val_fraction=0.0, leave_out=f"mine/{left_out}")

    def seen(extra):
        config.dataset.extra = extra
        return val & data_lib.trained_on(own_run, config, "val")

    assert seen(f"{folder}/") == seen("textures, mine") == val - {left_out} != set()
    assert not seen(str(folder.parent / "elsewhere" / "mine"))
    (folder.parent / "cwd" / "mine").mkdir(parents=True)
    monkeypatch.chdir(folder.parent / "cwd")  # a folder of that name lies here, which is another
    assert not seen("mine")


def test_no_test_picture_of_ucf_cc_50_is_trained_on():
    config = base_config.base()
    config.dataset.update(name="ucf_cc_50", fold=1, extra="shanghaitech-part_a")
    tested = extra_pictures.in_ucf_cc_50(config.dataset)
    assert len(tested) == 7 and "shanghaitech-part_a/IMG_21" in tested
    with pytest.raises(UserError, match="leave them out with .*part_a/IMG_21,shanghai.*IMG_297$"):
        extra_pictures.records(config)
    config.dataset.leave_out = ", ".join(tested[1:])
    assert extra_pictures.in_ucf_cc_50(config.dataset) == tested[:1]
    config.dataset.leave_out = ",".join(tested)
    assert not extra_pictures.in_ucf_cc_50(config.dataset)


def test_names_for_people(folder):
    d = {"extra": f"{folder}/, shanghaitech-part_b"}
    assert extra_pictures.titles(d) == ["mine", "shanghaitech-part_b"]
    assert extra_pictures.names({}) == []
