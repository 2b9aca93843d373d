"""A prepared data set cut into training, validation and test pictures, as a config describes it."""

import dataclasses
import logging
import pathlib
from collections.abc import Collection, Iterator

import ml_collections
import numpy as np

from cmtl_jax import config as base_config
from cmtl_jax.datasets import density_map, pack, prepare
from cmtl_jax.errors import UserError
from cmtl_jax.input_pipeline import buckets, count_groups, extra_pictures, holdout, on_device
from cmtl_jax.input_pipeline.batch import Batch, collate
from cmtl_jax.input_pipeline.crops import Augmentation, CropRule, random_crop
from cmtl_jax.input_pipeline.loader import EvaluationLoader, Shard, TrainingLoader, stream
from cmtl_jax.input_pipeline.patches import COPIES, Patches
from cmtl_jax.input_pipeline.pictures import Pictures
from cmtl_jax.input_pipeline.plan import EvaluationPlan, PlannedBatch, TrainingPlan
from cmtl_jax.input_pipeline.resize import ResizedPictures
from cmtl_jax.input_pipeline.seen import Seen

_PROGRAM_PIXELS = 2 * 2**20  # that a CPU evaluates while it compiles a program


@dataclasses.dataclass(frozen=True)
class Data:
    """The pictures of one run.

    Attributes:
        name: of the data set as it stands in results, such as 'shanghaitech-part_b'.
        splits: 'train', 'val' (held out of the training pictures, may be empty) and, where the data
            set has one, 'test'.
        own: those of 'train' that are the data set's own, once each; may be empty.
    """

    name: str
    splits: dict[str, Pictures]
    own: Pictures

    def pictures(self, split: str) -> Pictures:
        """Pictures of a split.

        Raises:
            UserError: there is none of that name, or it is empty.
        """
        if not len(self.splits.get(split, ())):
            there = ", ".join(name for name, pictures in self.splits.items() if len(pictures))
            raise UserError(
                f"{self.name} has no pictures in split {split!r}; it has {there or 'none at all'}"
            )
        return self.splits[split]

    def resolve(self, split: str) -> str:
        """'auto' -> 'test' where there is one, else 'val', else 'train'."""
        if split != "auto":
            return split
        there = [name for name in ("test", "val") if len(self.splits.get(name, ()))]
        return there[0] if there else "train"


def _raw_dir(d: ml_collections.ConfigDict) -> str | None:
    return d.raw_dir or base_config.raw_dir(d.name)


def pack_data(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> pathlib.Path:
    """Writes the config's raw data into workdir/pack/<config name>.zip.

    Pictures lose their colours, unless config.input.channels is 3.
    With config.eval.split=train or val the test pictures are left out: an evaluation of those
    needs none.

    Returns:
        The file. Unpacked, it is what config.dataset.raw_dir names.

    Raises:
        UserError: the raw data is missing or wrong.
    """
    d, splits = config.dataset, None
    if config.eval.split in ("train", "val") and d.name != "ucf_cc_50":
        splits = ["train"]
    path = workdir / "pack" / f"{config.name or d.name}.zip"
    channels = config.input.channels
    pack.pack(d.name, path, _raw_dir(d), d.options.to_dict(), splits, channels)
    logging.info(
        "%s: %.1f MB. Unpack it (python -m zipfile -e %s DIR) and say --config.dataset.raw_dir=DIR",
        path, path.stat().st_size / 1e6, path,
    )  # fmt: skip
    return path


def load(config: ml_collections.ConfigDict, *, training: bool = True) -> Data:
    """Prepares the config's data set, unless that was done, and cuts it.

    Args:
        config: of the run.
        training: whether split 'train' is what is trained on: with the pictures of
            config.dataset.extra, and config.dataset.repeat times its own. Otherwise it is its own.

    Raises:
        UserError: the raw data is missing or wrong.
    """
    data = _cut(config, training)
    sizes = ", ".join(
        f"{split} {len(p)} ({sum(e.count for e in p.index)} heads)"
        for split, p in data.splits.items()
    )
    logging.info("%s: %s", data.name, sizes)
    return data


def trained_on(
    config: ml_collections.ConfigDict, weights: ml_collections.ConfigDict, split: str
) -> set[str]:
    """Ids of the pictures of a split that the run of other weights may have trained on.

    What weights that this run started from had seen before is not known here.

    Args:
        config: of an evaluation.
        weights: the configuration that the weights were trained with.
        split: of config's data set. Test pictures may have the ids of others, and no run trains on
            them, but for UCF_CC_50's, which each are of the training pictures of four folds.

    Raises:
        UserError: the raw data is missing or wrong.
    """
    d, own = config.dataset, weights.dataset
    if split == "test" and d.name != "ucf_cc_50":
        return set()
    theirs = config.copy_and_resolve_references()
    theirs.dataset.leave_out = ""  # of names that may not be here
    prefix = ""
    if title := _title_in_extra(d, own):
        prefix = f"{title}/"
    elif _same_pictures(d, own):
        theirs.dataset.fold = own.fold  # each fold's run trained on the others' pictures
    else:
        return set()
    theirs.dataset.update({key: own[key] for key in ("val_fraction", "val_seed", "val_split")})
    ids = {entry.id for entry in _cut(theirs, training=False).splits["train"].index}
    left_out = {name.strip() for name in own.leave_out.split(",")}
    return {one for one in ids if f"{prefix}{one}" not in left_out}


def _title_in_extra(d: ml_collections.ConfigDict, other: ml_collections.ConfigDict) -> str | None:
    """By what name the pictures of a data set are among dataset.extra of a config, if they are."""
    if d.name == "point_folder":
        return extra_pictures.title_of_folder(other, d.raw_dir)
    return _name(d) if _name(d) in extra_pictures.names(other) else None


def _same_pictures(d: ml_collections.ConfigDict, other: ml_collections.ConfigDict) -> bool:
    """Whether two configs are of one data set, wherever it lies and however it is cut."""
    if d.name == "point_folder" and d.raw_dir != other.raw_dir:
        return False
    # As text: what weights say of themselves has lists for tuples.
    texts = {one.options.to_json(sort_keys=True) for one in (d, other)}
    return d.name == other.name and len(texts) == 1


def _name(d: ml_collections.ConfigDict) -> str:
    """The name of a data set as it stands in results."""
    if d.name == "ucf_cc_50":
        return f"ucf_cc_50-fold_{d.fold}"
    return f"shanghaitech-{d.options.part}" if d.name == "shanghaitech" else d.name


def _cut(config: ml_collections.ConfigDict, training: bool) -> Data:
    """`load` without its line in the log."""
    d = config.dataset
    prepared = prepare.prepare(
        d.name,
        rule=density_map.DensityRule(**config.density),
        raw_dir=_raw_dir(d),
        tfds_dir=d.tfds_dir or None,
        options=d.options.to_dict(),
    )
    name = _name(d)
    test_names = [split for split in prepared.splits if split == "test"]
    train_names = [split for split in prepared.splits if split == "train"]
    if d.name == "ucf_cc_50":
        test_names = [_tested_fold(d.fold, prepared.splits)]
        train_names = [split for split in prepared.splits if split not in test_names]

    if title := _title_in_extra(d, d):
        raise UserError(f"config.dataset.extra names {title}, which is the data set itself")
    pictures = Pictures.of_splits(
        [prepared.splits[split] for split in train_names + test_names],
        extra_pictures.records(config) if training else [],
        channels=config.input.channels,
        seen=Seen.of(config.input),
        cache_mib=d.cache_mib,
    )
    number = sum(len(prepared.splits[split]) for split in train_names)
    end = number + sum(len(prepared.splits[split]) for split in test_names)
    index = pictures.index
    counts = [entry.count for entry in index[:number]]
    train, val = holdout.hold_out(counts, d.val_fraction, d.val_seed, d.val_split)
    left_out = _left_out(d, {entry.id for entry in index}, training)
    own = [i for i in train if index[i].id not in left_out]
    train = own
    if training:
        extra = [i for i in range(end, len(pictures)) if index[i].id not in left_out]
        train = own * d.repeat + extra
    splits = {"train": pictures.subset(train), "val": pictures.subset(val)}
    if test_names:
        splits["test"] = pictures.subset(range(number, end))
    return Data(name, splits, pictures.subset(own))


def _tested_fold(fold: int, splits: Collection[str]) -> str:
    """
    Raises:
        UserError: fold 0, which is all of them, or one without pictures.
    """
    if fold == 0:
        raise UserError(
            "ucf_cc_50: config.dataset.fold=0 means all five folds, and here one is needed; give "
            "--config.dataset.fold=1, 2, 3, 4 or 5"
        )
    name = f"fold_{fold}"
    if name not in splits:
        raise UserError(
            f"ucf_cc_50: no pictures of {name}; there are {', '.join(splits)}: complete the raw "
            "folder (config.dataset.raw_dir)"
        )
    return name


def _left_out(d: ml_collections.ConfigDict, there: Collection[str], training: bool) -> set[str]:
    """Which pictures are not to be trained on. Held out are the same ones with and without.

    Raises:
        UserError: there is no picture of one of the names.
    """
    wanted = {name.strip() for name in d.leave_out.split(",") if name.strip()}
    if not training:  # those of other data sets are not there
        wanted = {name for name in wanted if "/" not in name or name in there}
    if unknown := sorted(wanted.difference(there)):
        raise UserError(
            f"config.dataset.leave_out names {', '.join(unknown)}, which no picture is; they are "
            f"{', '.join(sorted(there)[:3])} and so on, {len(there)} in all"
        )
    return wanted


def crop_rule(config: ml_collections.ConfigDict) -> CropRule:
    """How the training crops are cut."""
    p = config.crop
    return CropRule(p.mode, p.height, p.width, p.range, p.jpeg, config.augment.zoom)


def stored_patches(
    config: ml_collections.ConfigDict, pictures: Pictures, *, copies: bool = True
) -> Patches | None:
    """The stored patches of pictures; None where a new crop is taken each time (crop.stored = 0).

    Args:
        config: of the run.
        pictures: to cut.
        copies: whether with augment.when = 'stored' flipped and noisy copies are among them.
    """
    if not config.crop.stored:
        return None
    stored = config.augment.when == "stored"
    number = config.crop.stored // (COPIES if stored and not copies else 1)
    noise_level = config.augment.noise_level if stored and copies else None
    return Patches(pictures, crop_rule(config), number, config.seed, noise_level=noise_level)


def validation_pictures(
    config: ml_collections.ConfigDict, data: Data
) -> Pictures | ResizedPictures | Patches:
    """What a run is validated on: whole held-out pictures, or stored patches of them.

    Raises:
        UserError: no picture is held out.
    """
    if config.dataset.validate_on == "patches":
        return stored_patches(config, data.pictures("val"), copies=False)
    return whole_pictures(config, data, "val")


def whole_pictures(
    config: ml_collections.ConfigDict, data: Data, split: str
) -> Pictures | ResizedPictures:
    """Whole pictures of a split, resized as config.input.scale and config.input.resize say.

    Raises:
        UserError: there is none.
    """
    pictures = data.pictures(split)
    return ResizedPictures(pictures) if config.input.resize == "multiple_of_4" else pictures


def describe_validation(config: ml_collections.ConfigDict) -> str:
    """What validation_pictures are and how they are drawn, in words."""
    d = config.dataset
    what = "whole held-out training pictures"
    if d.validate_on == "patches":
        number = config.crop.stored // (COPIES if config.augment.when == "stored" else 1)
        what = f"{number} patches of each held-out training picture"
    drawn = "stratified by count"
    if d.val_split == "released":
        drawn = "drawn regardless of count, one picture less as in the authors' code"
    return f"{what} ({d.val_fraction:.0%}, {drawn}, seed {d.val_seed})"


def fit_groups(config: ml_collections.ConfigDict, train: Pictures) -> count_groups.CountGroups:
    """Count groups and class weights of the training split: of all its stored patches, if any.

    Otherwise of config.groups.samples random crops of each picture.
    """
    g = config.groups
    patches = stored_patches(config, train)
    if patches is None:
        counts = count_groups.sample_counts(
            train, crop_rule(config), g.samples, config.seed, g.count
        )
    else:
        counts = count_groups.stored_counts(patches, g.count)
    return count_groups.fit(counts, g.number, g.binning, g.class_weights)


def sample_crops(config: ml_collections.ConfigDict, train: Pictures, number: int) -> Batch:
    """Random crops of so many pictures, without augmentation, in one batch of one shape."""
    rule = crop_rule(config)
    rng = np.random.default_rng([config.seed, 1])
    positions = rng.permutation(len(train))[:number]
    crops = [random_crop(train[i], rule, rng) for i in positions.tolist()]
    sizes = [crop.image.shape[:2] for crop in crops]
    return collate(
        crops,
        [0] * len(crops),
        buckets.choose(sizes, 1).shapes[0],
        len(crops),
        mean=config.input.mean,
        std=config.input.std,
        channels=train.channels,
    )


def training_stream(
    config: ml_collections.ConfigDict,
    train: Pictures,
    groups: count_groups.CountGroups,
    *,
    rows: int | None = None,
    start: int,
    shard: Shard,
) -> Iterator[Batch | on_device.Cuts]:
    """This process's part of the training batches number `start` to config.train.steps - 1.

    With config.dataset.on_device, Cuts that `cutter` makes batches of.

    A batch depends on the config, the pictures and its number alone. Each round of the stream takes
    every picture, or every stored patch, equally often. H and W are one shape for
    crops of fixed size, at most config.crop.max_buckets shapes for others. With more rows than
    config.train.batch_size, the rest of the global batch are fillers.
    """
    rule = crop_rule(config)
    patches = stored_patches(config, train)
    if patches is None:
        sizes = [rule.size(entry.height, entry.width) for entry in train.index]
    else:
        sizes = patches.sizes
    max_buckets = 1 if rule.mode == "fixed" else config.crop.max_buckets
    plan = TrainingPlan(
        sizes,
        buckets.choose(sizes, max_buckets),
        config.train.batch_size,
        config.train.steps,
        config.seed,
    )
    rows = rows or config.train.batch_size
    if config.dataset.on_device:
        cuts = on_device.CutLoader(
            [(entry.height, entry.width) for entry in train.index],
            [train.points(i) for i in range(len(train))],
            groups,
            rows,
            rule,
            _augmentation(config),
            config.seed,
            shard,
        )
        return stream(plan, cuts, start=start, num_workers=config.dataset.num_workers)
    loader = TrainingLoader(
        train if patches is None else patches,
        groups,
        rows,
        config.input.mean,
        config.input.std,
        shard,
        rule if patches is None else None,
        _augmentation(config),
        config.seed,
        config.groups.count,
    )
    return stream(plan, loader, start=start, num_workers=config.dataset.num_workers)


def _augmentation(config: ml_collections.ConfigDict) -> Augmentation:
    online = config.augment.when == "online"
    return Augmentation.of(config.augment) if online else Augmentation()


def cutter(config: ml_collections.ConfigDict, train: Pictures) -> on_device.Cutter:
    """What makes batches of the training stream's Cuts; holds all training pictures.

    Raises:
        UserError: they are too large, or one is damaged.
    """
    rule = crop_rule(config)
    sizes = [rule.size(entry.height, entry.width) for entry in train.index]
    return on_device.cutter(
        train,
        rule,
        buckets.choose(sizes, 1).shapes[0],
        mean=config.input.mean,
        std=config.input.std,
        augmentation=_augmentation(config),
    )


def evaluation_plan(
    config: ml_collections.ConfigDict,
    pictures: Pictures | ResizedPictures | Patches,
    batch_size: int,
    passes: int = 1,
) -> EvaluationPlan:
    """Every picture exactly once, in batches of at most config.eval.max_buckets shapes.

    The more passes over the pictures there will be, the less padding a program has to save in each.
    """
    sizes = [(entry.height, entry.width) for entry in pictures.index]
    chosen = buckets.choose(sizes, config.eval.max_buckets, _PROGRAM_PIXELS // passes)
    return EvaluationPlan(sizes, chosen, batch_size)


def evaluation_stream(
    config: ml_collections.ConfigDict,
    plan: EvaluationPlan,
    pictures: Pictures | ResizedPictures | Patches,
    groups: count_groups.CountGroups,
    *,
    shard: Shard,
) -> Iterator[tuple[PlannedBatch, Batch]]:
    """The batches of a plan of these pictures, loaded.

    Yields:
        The global batch as planned (its positions are those of `pictures`), and this process's rows
        of it: row r of the batch is positions[r], rows beyond them are fillers.
    """
    loader = EvaluationLoader(
        pictures, groups, plan.batch_size, config.input.mean, config.input.std, shard
    )
    return stream(plan, loader)
