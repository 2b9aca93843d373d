"""From a config to splits and streams."""

import collections
import itertools

import jax
import numpy as np
import pytest

from cmtl_jax import config as base_config
from cmtl_jax.datasets import prepare
from cmtl_jax.datasets.prepare import IndexEntry, Prepared
from cmtl_jax.errors import UserError
from cmtl_jax.input_pipeline import buckets
from cmtl_jax.input_pipeline import data as data_lib
from cmtl_jax.input_pipeline.batch import shaped
from cmtl_jax.input_pipeline.loader import Shard
from cmtl_jax.input_pipeline.pictures import Pictures
from cmtl_jax.input_pipeline.plan import EvaluationPlan


class EmptySplit:
    """An index without pictures."""

    def __init__(self, name: str, number: int):
        self.name = name
        self.index = [IndexEntry(f"{name}_{i}", 40, 60, i) for i in range(number)]

    def __len__(self):
        return len(self.index)


def ids(pictures) -> set[str]:
    return {entry.id for entry in pictures.index}


def make_config(name: str, **dataset):
    config = base_config.base()
    config.dataset.name = name
    config.dataset.update(dataset)
    return config


@pytest.fixture
def pretend(monkeypatch):
    """Makes a prepared data set of empty splits; returns what it was asked for."""
    asked = {}

    def install(**numbers):
        def fake(name, **options):
            asked.update(options, name=name)
            splits = {split: EmptySplit(split, number) for split, number in numbers.items()}
            return Prepared(name, "", None, splits, [])

        monkeypatch.setattr(prepare, "prepare", fake)
        return asked

    return install


def test_shanghaitech(pretend, monkeypatch, tmp_path):
    monkeypatch.setenv("CMTL_DATA_DIR", str(tmp_path))
    asked = pretend(train=300, test=182)
    config = make_config("shanghaitech")
    config.dataset.options.part = "part_a"
    data = data_lib.load(config)
    assert asked["raw_dir"] == str(tmp_path / "ShanghaiTech")
    assert asked["tfds_dir"] is None
    assert asked["options"] == {"part": "part_a"}
    assert asked["rule"].sigma == config.density.sigma
    assert data.name == "shanghaitech-part_a"
    assert {split: len(pictures) for split, pictures in data.splits.items()} == {
        "train": 270, "val": 30, "test": 182
    }  # fmt: skip
    train, val, test = (ids(data.pictures(split)) for split in ("train", "val", "test"))
    assert not train & val
    assert train | val == {f"train_{i}" for i in range(300)}
    assert test == {f"test_{i}" for i in range(182)}
    assert sorted(entry.count // 10 for entry in data.pictures("val").index) == list(range(30))
    assert data.resolve("auto") == "test"
    assert data.resolve("val") == "val"


@pytest.mark.parametrize(("number", "held_out"), [(300, 29), (400, 39)])
def test_the_authors_validation_split(pretend, number, held_out):
    pretend(train=number, test=3)
    config = make_config("shanghaitech", val_split="released")
    config.dataset.options.part = "part_a"
    data = data_lib.load(config)
    assert [len(data.splits[s]) for s in ("train", "val")] == [number - held_out, held_out]
    assert not ids(data.pictures("train")) & ids(data.pictures("val"))
    config.dataset.val_seed = 1
    assert ids(data_lib.load(config).pictures("val")) != ids(data.pictures("val"))


def test_the_split_has_its_own_seed(pretend):
    pretend(train=100, test=1)

    def val(**changes):
        config = make_config("synthetic")
        config.update_from_flattened_dict(changes)
        return ids(data_lib.load(config).pictures("val"))

    assert val() == val(seed=5)
    assert val() != val(**{"dataset.val_seed": 5})


def test_left_out_are_training_pictures_alone(pretend):
    pretend(train=100, test=1)
    whole = data_lib.load(make_config("synthetic"))
    held_out = sorted(ids(whole.pictures("val")))[0]
    trained = sorted(ids(whole.pictures("train")))
    names = f"{trained[3]}, {held_out},test_0"
    part = data_lib.load(make_config("synthetic", leave_out=names))
    assert ids(part.pictures("train")) == set(trained) - {trained[3]}
    for split in ("val", "test"):
        assert ids(part.pictures(split)) == ids(whole.pictures(split))
    with pytest.raises(UserError, match="leave_out names train_500, which no picture is; .* 101"):
        data_lib.load(make_config("synthetic", leave_out="train_500,train_1"))


def test_ucf_fold_is_the_test_split(pretend):
    pretend(**{f"fold_{i}": 10 for i in range(1, 6)})
    data = data_lib.load(make_config("ucf_cc_50", fold=2, raw_dir="somewhere"))
    assert data.name == "ucf_cc_50-fold_2"
    assert ids(data.pictures("test")) == {f"fold_2_{i}" for i in range(10)}
    assert (len(data.pictures("train")), len(data.pictures("val"))) == (36, 4)
    assert not (ids(data.pictures("train")) | ids(data.pictures("val"))) & ids(
        data.pictures("test")
    )


def test_without_a_test_split(pretend):
    pretend(train=20)
    data = data_lib.load(make_config("point_folder", raw_dir="somewhere"))
    assert data.resolve("auto") == "val"
    with pytest.raises(UserError, match=r"no pictures in split 'test'; it has train, val"):
        data.pictures("test")
    data = data_lib.load(make_config("point_folder", raw_dir="somewhere", val_fraction=0.0))
    assert data.resolve("auto") == "train"
    with pytest.raises(UserError, match=r"split 'val'; it has train"):
        data.pictures("val")


def test_a_test_split_alone(pretend):
    pretend(test=4)
    data = data_lib.load(make_config("point_folder", raw_dir="somewhere"))
    assert data.resolve("auto") == "test"
    with pytest.raises(UserError, match=r"split 'train'; it has test"):
        data.pictures("train")


def test_one_picture_cannot_be_split(pretend):
    pretend(train=1)
    with pytest.raises(UserError, match="val_fraction=0"):
        data_lib.load(make_config("point_folder", raw_dir="somewhere"))


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture
def config(tfds_dir):
    config = make_config("synthetic", tfds_dir=str(tfds_dir), val_fraction=0.25)
    options = {"num_train": 12, "num_test": 5, "height": (60, 100), "width": (70, 130)}
    config.dataset.options.update(options)
    config.train.update(batch_size=4, steps=30)
    config.eval.update(batch_size=2, max_buckets=3)
    config.groups.samples = 8
    return config


def test_synthetic_data_from_config_to_batches(config):
    config.crop.update(mode="fixed", height=48, width=64)
    data = data_lib.load(config)
    assert {split: len(p) for split, p in data.splits.items()} == {"train": 9, "val": 3, "test": 5}
    train = data.pictures("train")
    groups = data_lib.fit_groups(config, train)
    assert sum(groups.histogram) == 9 * 8
    assert groups == data_lib.fit_groups(config, train)
    shard = Shard()
    batches = list(data_lib.training_stream(config, train, groups, start=0, shard=shard))
    assert len(batches) == 30
    assert {batch.image.shape for batch in batches} == {(4, 48, 64, 1)}
    late = list(data_lib.training_stream(config, train, groups, start=29, shard=shard))
    assert len(late) == 1
    assert np.array_equal(late[0].image, batches[29].image)

    (filled,) = data_lib.training_stream(config, train, groups, rows=6, start=29, shard=shard)
    assert filled.weight.tolist() == [1, 1, 1, 1, 0, 0]
    assert np.array_equal(filled.image[:4], batches[29].image)

    val = data.pictures("val")
    seen = {}
    # Three small pictures do not pay for a second program, unless they are counted for ever.
    often = data_lib.evaluation_plan(config, val, batch_size=2, passes=10**9)
    sizes = [(entry.height, entry.width) for entry in val.index]
    chosen = buckets.choose(sizes, config.eval.max_buckets)
    assert often.shapes == EvaluationPlan(sizes, chosen, 2).shapes and len(often.shapes) == 2
    plan = data_lib.evaluation_plan(config, val, batch_size=2)
    assert len(plan.shapes) == 1
    for planned, batch in data_lib.evaluation_stream(config, plan, val, groups, shard=shard):
        assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) == jax.tree.map(
            lambda x: (x.shape, x.dtype), shaped(planned.shape, 2, val.channels)
        )
        for row, position in enumerate(planned.positions):
            assert position not in seen
            seen[position] = batch.count[row]
    assert [seen[i] for i in range(3)] == [entry.count for entry in val.index]


def test_quarter_crops_share_few_shapes(config):
    config.crop.update(mode="quarter", max_buckets=2)
    config.input.update(channels=3, mean=0.0, std=255.0)
    config.augment.update(flip=0.0, noise=0.0)
    data = data_lib.load(config)
    train = data.pictures("train")
    groups = data_lib.fit_groups(config, train)
    batches = list(data_lib.training_stream(config, train, groups, start=0, shard=Shard(1, 2)))
    assert all(batch.image.shape[0] == 2 and batch.image.shape[3] == 3 for batch in batches)
    assert len({batch.image.shape for batch in batches}) <= 2
    quarters = {(entry.height // 4, entry.width // 4) for entry in train.index}
    sizes = {tuple(size) for batch in batches for size in batch.size[batch.weight > 0].tolist()}
    assert sizes <= quarters
    assert len(sizes) > 2
    assert all(0 <= batch.image.min() and batch.image.max() <= 1 for batch in batches)


def stored(config, **crop):
    """Small released patches, six a picture."""
    crop = dict(mode="released", range="released", stored=6, max_buckets=2) | crop
    config.crop.update(crop)
    config.input.update(mean=0.0, std=1.0)
    config.augment.update(zoom=0.0, contrast=0.0, brightness=0.0)
    config.dataset.options.update(height=(130, 200), width=(130, 200))
    base_config.validate(config)
    train = data_lib.load(config).pictures("train")
    return train, data_lib.fit_groups(config, train)


def training(config, train, groups, start=0, shard=Shard()):
    return list(data_lib.training_stream(config, train, groups, start=start, shard=shard))


def examples(batches):
    """Image of each example without its padding, with its group and count."""
    for batch in batches:
        for i in np.flatnonzero(batch.weight):
            h, w = batch.size[i]
            image = batch.image[i, :h, :w]
            yield image, int(batch.group[i]), float(batch.count[i]), batch.density[i, :h, :w]


def same_batches(a, b) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x, y) for one, two in zip(a, b, strict=True)
        for x, y in zip(one, two, strict=True)
    )  # fmt: skip


@pytest.mark.parametrize("when", ["online", "stored"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_epoch_shows_every_stored_patch_once(config, when, batch_size):
    """9 pictures of 6 patches; with copies they are fixed, and nothing is done on the fly."""
    chance = float(when == "stored")
    config.augment.update(when=when, flip=chance, noise=chance)
    config.groups.update(binning="released", count="density")
    train, groups = stored(config)
    patches = data_lib.stored_patches(config, train)
    rounds = 54 if batch_size == 1 else 60  # no fillers in batches of one
    config.train.update(batch_size=batch_size, steps=rounds)
    shown = collections.Counter()
    labels = np.zeros(10, int)
    for image, group, count, _ in itertools.islice(
        examples(training(config, train, groups)), 162 if batch_size == 4 else 54
    ):
        shown[image.tobytes(), count] += 1
        labels[group] += 1
    expected = collections.Counter(
        (patch.image.astype(np.float32).tobytes(), float(len(patch.points))) for patch in patches
    )
    times = 3 if batch_size == 4 else 1  # passes that make up 32 batches
    assert shown == collections.Counter({key: times * n for key, n in expected.items()})
    assert sum(groups.histogram) == 54
    assert labels.tolist() == [times * n for n in groups.histogram]


def test_stored_patches_are_flipped_and_noisy_on_the_fly(config):
    train, groups = stored(config, stored=1)
    patch = data_lib.stored_patches(config, train)[0].image.astype(np.float32)
    config.train.update(batch_size=1, steps=200)
    config.augment.noise = 0.0
    shown = collections.Counter(x[0].tobytes() for x in examples(training(config, train, groups)))
    own, flipped = shown[patch.tobytes()], shown[patch[:, ::-1].tobytes()]
    assert own + flipped in (22, 23)  # of 200 steps, every ninth
    assert min(own, flipped) >= 2
    config.augment.noise = 1.0
    assert len({x[0].tobytes() for x in examples(training(config, train, groups))}) == 200


@pytest.mark.parametrize("when", ["online", "stored"])
def test_stored_patches_are_the_same_for_workers_shards_and_after_a_resume(config, when):
    config.augment.when = when
    train, groups = stored(config)
    config.train.steps = 25
    batches = training(config, train, groups)
    assert same_batches(training(config, train, groups, start=19), batches[19:])
    halves = [training(config, train, groups, shard=Shard(i, 2)) for i in range(2)]
    joined = [
        [np.concatenate(pair) for pair in zip(*parts, strict=True)]
        for parts in zip(*halves, strict=True)
    ]
    assert same_batches(joined, batches)
    config.dataset.num_workers = 1
    assert same_batches(training(config, train, groups, start=19), batches[19:])
    config.dataset.num_workers = 0
    config.seed = 1
    assert not same_batches(training(config, train, groups), batches)


def test_the_count_rule_changes_groups_alone(config):
    train, _ = stored(config, stored=0)
    points, density = {}, {}
    for rule, result in (("points", points), ("density", density)):
        config.groups.update(count=rule, binning="uniform")
        result["groups"] = data_lib.fit_groups(config, train)
        result["batches"] = training(config, train, result["groups"])
    assert points["groups"].edges != density["groups"].edges
    for a, b in zip(points["batches"], density["batches"], strict=True):
        assert same_batches([a._replace(group=b.group)], [b])
    for _, group, count, _ in examples(points["batches"]):
        assert group == sum(count >= edge for edge in points["groups"].edges)
    fractional = 0
    for _, group, count, map_ in examples(density["batches"]):
        total = map_.astype(np.float64).sum()
        assert group == sum(total >= edge for edge in density["groups"].edges)
        fractional += abs(total - count) > 0.01
    assert fractional > 10


def test_the_range_changes_places_alone(config):
    config.augment.update(flip=0.0, noise=0.0)
    train, groups = stored(config, stored=0, range="all")
    everywhere = training(config, train, groups)
    config.crop.range = "released"
    theirs = training(config, train, groups)
    assert [batch.image.shape for batch in everywhere] == [batch.image.shape for batch in theirs]
    assert all(np.array_equal(a.size, b.size) for a, b in zip(everywhere, theirs, strict=True))
    assert not same_batches(everywhere, theirs)


def test_validation_on_patches_of_the_held_out_pictures(config):
    train, groups = stored(config)
    data = data_lib.load(config)
    val = data.pictures("val")
    assert data_lib.validation_pictures(config, data) is val
    assert data_lib.describe_validation(config).startswith("whole held-out training pictures (25%")
    config.dataset.validate_on = "patches"
    for when, number in (("online", 6), ("stored", 2)):  # without flipped and noisy copies
        config.augment.when = when
        patches = data_lib.validation_pictures(config, data)
        assert len(patches) == number * len(val) == number * 3
        assert f"{number} patches of each" in data_lib.describe_validation(config)
        seen = collections.Counter()
        plan = data_lib.evaluation_plan(config, patches, batch_size=2)
        for planned, batch in data_lib.evaluation_stream(
            config, plan, patches, groups, shard=Shard()
        ):
            for row, position in enumerate(planned.positions):
                h, w = batch.size[row]
                assert np.array_equal(batch.image[row, :h, :w], patches[position].image)
                seen[position] += 1
        assert seen == collections.Counter(range(len(patches)))
    picture = {entry.id for entry in val.index}
    assert {entry.id.rpartition("_")[0] for entry in patches.index} == picture
    assert train is not val


def test_all_splits_share_the_memory_for_decoded_pictures(config):
    config.dataset.options.update(height=(200, 220), width=(200, 220))
    config.dataset.cache_mib = 1  # five pictures of 17
    data = data_lib.load(config)
    assert all(isinstance(pictures, Pictures) for pictures in data.splits.values())
    decoded = sum(picture.num_bytes for pictures in data.splits.values() for picture in pictures)
    assert decoded > 2**21
    caches = {id(pictures._cache): pictures._cache.num_bytes for pictures in data.splits.values()}
    assert 2**19 < sum(caches.values()) <= 2**20


def of_part(part, **dataset):
    config = make_config("shanghaitech", **dataset)
    config.dataset.options.part = part
    return config


def test_what_weights_were_trained_on(pretend):
    pretend(train=30, test=5)
    asked = of_part("part_a", val_seed=3)
    val = ids(data_lib.load(asked).pictures("val"))

    def seen(**dataset):
        return data_lib.trained_on(asked, of_part("part_a", **dataset), "val")

    other_val = data_lib.load(of_part("part_a", val_seed=4)).pictures("val")
    assert not val & seen(val_seed=3)
    assert len(val & seen(val_seed=4)) == len(val - ids(other_val)) > 0
    assert seen(val_fraction=0.0) == {f"train_{i}" for i in range(30)}
    assert len(seen(val_fraction=0.0, leave_out="train_3, train_7, not_here")) == 28
    assert len(seen(val_seed=3, repeat=4, raw_dir="elsewhere")) == 27
    # Ids of ShanghaiTech's test pictures are those of its training pictures: IMG_1 and so on.
    assert not data_lib.trained_on(asked, of_part("part_a", val_fraction=0.0), "test")


def test_what_weights_of_other_data_sets_were_trained_on(pretend):
    pretend(train=30, test=5)
    asked = of_part("part_b")
    val = ids(data_lib.load(asked).pictures("val"))
    assert not data_lib.trained_on(asked, of_part("part_a"), "val")
    extra = of_part("part_a", extra="empty_scenes,shanghaitech-part_b", val_fraction=0.0)
    assert val < data_lib.trained_on(asked, extra, "val")
    extra.dataset.leave_out = "train_1,shanghaitech-part_b/train_2"
    seen = data_lib.trained_on(asked, extra, "val")
    assert "train_2" not in seen and "train_1" in seen


def test_what_weights_of_another_folder_were_trained_on(pretend):
    pretend(train=30)
    mine = make_config("point_folder", raw_dir="mine")
    assert data_lib.trained_on(mine, mine, "val")
    yours = make_config("point_folder", raw_dir="yours")
    assert not data_lib.trained_on(mine, yours, "val")


def test_what_weights_of_another_fold_were_trained_on(pretend):
    pretend(**{f"fold_{i}": 10 for i in range(1, 6)})
    first, second = (make_config("ucf_cc_50", fold=fold, val_fraction=0.0) for fold in (1, 2))
    test = ids(data_lib.load(first).pictures("test"))
    assert not test & data_lib.trained_on(first, first, "test")
    assert test < data_lib.trained_on(first, second, "test")
