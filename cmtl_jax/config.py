"""The base configuration: every key with its unit and meaning, and what is checked of it."""

import difflib
import math
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections
from ml_collections import config_dict

from cmtl_jax.errors import UserError

_RAW_FOLDERS = {"shanghaitech": "ShanghaiTech", "ucf_cc_50": "UCF_CC_50"}
PRESETS = ("recommended", "paper", "reference", "c3")


def base() -> ml_collections.ConfigDict:
    """Every key with its default, which is the `recommended` choice."""
    c = ml_collections.ConfigDict()
    c.name = ""  # of the config, part of the default work folder
    c.preset = "recommended"
    c.seed = 0  # of initialisation, crops, order, noise and dropout
    c.parallel = "jit"  # jit (sharded mesh) | pmap: how a step runs on many devices
    c.matmul_precision = "float32"  # float32 | tensorfloat32 (faster on GPUs that have it)
    # Work folder (its best weights), file or name: trained on, evaluated. With commas: their mean.
    c.init_from = ""

    d = c.dataset = ml_collections.ConfigDict()
    d.name = ""  # shanghaitech | ucf_cc_50 | point_folder | synthetic
    d.raw_dir = ""  # raw folder; empty: $CMTL_DATA_DIR/<its usual name>
    d.tfds_dir = ""  # where prepared data goes; empty: TFDS's default
    d.options = ml_collections.ConfigDict()  # of the builder, such as part or folds
    d.fold = 0  # fold tested, 1..5, of a data set cut into folds; 0: all, one after the other
    d.val_fraction = 0.1  # of the training pictures, held out
    d.val_split = "stratified"  # stratified by count | released (authors' code: any, one fewer)
    d.leave_out = ""  # ids of pictures that are not trained on, such as IMG_1,IMG_9
    # Other data sets whose training pictures are trained on, too: shanghaitech-part_a,
    # shanghaitech-part_b, empty_scenes and textures (drawn, without people), folders with points.
    d.extra = ""
    d.repeat = 1  # times that a round takes each picture of the data set itself
    d.validate_on = "whole"  # whole held-out pictures | patches of them (authors' code)
    d.val_seed = 0  # which pictures are held out
    d.cache_mib = 2048  # decoded pictures and maps kept in memory, for all splits, by each worker
    d.num_workers = 0  # processes that load data; 0: threads of this one
    d.on_device = False  # training pictures stay on the device, where crops are cut (for GPUs)

    m = c.density = ml_collections.ConfigDict()  # the rule of the precomputed density maps
    m.kernel = 15  # side of the Gaussian's window, pixels
    m.sigma = 4.0  # of the Gaussian, pixels
    m.border = "clip_renorm"  # clip_renorm | recenter (authors' code): kernel at the border
    m.outside = "clamp"  # clamp | drop | reference (authors' code): points outside the picture

    i = c.input = ml_collections.ConfigDict()  # grey levels 0..255 -> (x - mean) / std
    i.channels = 1  # 1 grey (released) | 3 colour
    i.mean = 113.0
    i.std = 64.0
    i.scale = 1.0  # of the pictures' sides, before anything else; counts and maps keep their sums
    i.contrast = 0.0  # standard deviation that each picture is brought to after that; 0: as it is
    i.detail = 0.0  # level that its fine detail is brought to after that (detail.py); 0: as it is
    # Pictures whose people are counted as standing less than so many pixels apart (head_spacing.py,
    # on the map that the network gives) are counted once more at sides times close_scale, and both
    # maps averaged: far rows of dense crowds lose their heads where sides shrink. 0: never.
    i.close = 0.0
    i.close_scale = 1.0
    # Scales of their sides at which every whole picture is counted, too, such as (0.35,0.7) beside
    # a scale of 0.5; all maps averaged. For pictures with heads of any size. (): none.
    i.looks = ()
    i.resize = "none"  # none | multiple_of_4 (authors' code): whole pictures, bilinear, downwards

    p = c.crop = ml_collections.ConfigDict()
    p.mode = "fixed"  # fixed | quarter (paper: of each side) | released (16 * floor(side / 64))
    # centres (at any pixel, so that borders are seen as much as the middle) | all (positions are
    # equally likely) | released (authors' code: all but the last two)
    p.range = "centres"
    p.stored = 0  # patches of each picture drawn once (authors' code: 9); 0: new crops each time
    p.jpeg = 0  # quality of a JPEG that crops pass through (authors' code: 75); 0: none
    # Small crops of many pictures teach more than large ones of few at the same cost.
    p.height = 96  # pixels, mode fixed; a smaller picture is taken whole
    p.width = 96
    p.max_buckets = 8  # padded shapes of modes quarter and released

    a = c.augment = ml_collections.ConfigDict()
    a.flip = 0.5  # probability of a horizontal flip
    a.noise = 0.5  # probability of noise
    a.noise_level = 10.0  # uniform noise of +- this many grey levels
    a.clip = True  # keep noisy grey levels within 0..255; the authors' code does not
    a.contrast = 0.2  # distances from a crop's mean grey level are multiplied by 1 +- this at most
    a.brightness = 20.0  # at most this many grey levels are added or taken away
    a.sharpness = 0.0  # detail finer than a Gaussian of 1 pixel is multiplied by 1 +- this at most
    a.grey = 0.0  # probability that a crop in colours loses them
    a.zoom = 0.25  # crops show 1 / (1 + zoom) to 1 + zoom times their own sides
    a.when = "online"  # online | stored (paper): a third of crop.stored flipped, a third noisy

    g = c.groups = ml_collections.ConfigDict()  # crowd-count groups
    g.number = 10
    g.count = "points"  # points | density (authors' code): what a crop's group is taken from
    g.binning = "quantile"  # quantile | uniform | released | c3: edges from the counts of crops
    g.class_weights = "inv_sqrt"  # none | inv_sqrt | released
    g.samples = 32  # crops a picture that edges and weights are taken from, unless stored

    n = c.model = ml_collections.ConfigDict()  # see cmtl_jax.models.cmtl.Architecture
    n.name = "cmtl"  # cmtl | single_stage | mcnn
    n.prior_pool = "adaptive_max"
    n.prior_fusion = "features"  # features (paper) | film: the group probabilities act, too
    n.spp_levels = (4, 2, 1)
    n.up_maps = (16, 8)
    n.logit_activation = "none"
    n.dropout = 0.5
    n.output_activation = "relu"
    n.init = "whitened"
    n.dtype = "float32"

    s = c.loss = ml_collections.ConfigDict()  # density loss + weight * group loss
    s.group_weight = 0.02  # lambda of the paper (there 1e-4)
    s.group_loss = "softmax_ce"  # softmax_ce | softmax_bce (authors' code) | sigmoid_bce (paper)
    s.density_reduction = "mean"  # mean over pixels (authors' code) | sum (paper, Eq. 2)
    s.density_scale = 100.0  # the network's output and the loss are in people per 100 pixels
    s.block_weight = 8.0  # of the loss of people in blocks (ours); 0: without
    s.block_side = 32  # of such a block, pixels
    s.block_linear = 0.0  # people in a block from which on errors count linearly; 0: never

    o = c.optimizer = ml_collections.ConfigDict()
    # adam (paper) | muon (the convolutions' kernels by orthogonalised momentum, all else by Adam)
    o.name = "muon"
    o.learning_rate = 1e-3
    o.schedule = "cosine"  # constant | cosine (to zero at the last step)
    o.warmup_steps = 100
    o.b1 = 0.9  # the paper's momentum
    o.b2 = 0.999
    o.eps = 1e-8
    o.weight_decay = 0.0  # added to the gradient, as a share of the weights (C-3-Framework: 1e-4)
    o.head_factor = 0.01  # learning rate of the fully connected head, relative to the others'
    o.grad_clip = 0.0  # norm gradients are clipped to; 0: off
    o.ema = 0.998  # decay of the averaged weights that are evaluated and shipped; 0: off
    # The average soon forgets its start. False: that keeps a share of ema ** steps, as good weights
    # (init_from) may for what few pictures cannot teach (after WiSE-FT, Wortsman et al., 2022).
    o.ema_warmup = True

    t = c.train = ml_collections.ConfigDict()
    t.batch_size = 8  # crops a step, over all devices
    t.steps = 20_000
    t.eval_every = 2000  # steps; a checkpoint is saved with each validation
    t.log_every = 20
    t.keep_latest = 2  # checkpoints, beside the best
    # The held-out MAE chooses the checkpoint that a run stands for; False: it is the last one, as a
    # handful of held-out pictures choose by chance.
    t.keep_best = True
    # Folds of a cross-validation trained side by side by one program, on the same devices: small
    # steps leave a GPU idle.
    t.folds_at_once = 1
    t.stop_on_dead = True  # end a run whose density output is dead; False: only warn
    t.dead_patience = 3  # dead looks in a row before that, one each log_every steps

    e = c.eval = ml_collections.ConfigDict()
    e.split = "auto"  # auto (test where there is one, else val) | train | val | test
    # best | latest | a step: of the work folder, or of that of init_from where mode is eval or
    # export. Training starts from the best one, and a file or name holds no other steps.
    e.checkpoint = "best"
    e.batch_size = 4  # pictures a step, over all devices
    e.max_buckets = 8  # padded shapes that pictures of all sizes share
    # What counts are held against: points | density | reference_py2 | reference_py3 (the latter
    # two: the authors' test script, which sums a resized map and loses people).
    e.ground_truth = "points"
    # Pictures shown in the report: a third each with the largest errors, with most people counted
    # where nobody is, with the smallest errors.
    e.triptychs = 12
    # Weights that take over where people stand close, as `sha` does beside `shb` where photos are
    # counted by default. Name, file or work folder; for whole pictures alone. Such results have a
    # folder of their own.
    e.close_weights = ""

    x = c.export = ml_collections.ConfigDict()
    x.format = "h5"  # h5 (authors' PyTorch code) | safetensors (ours, a card) | stablehlo | onnx
    x.dtype = "float32"  # float32 | float16 (safetensors: half the size; counts are checked)
    x.pictures = ""  # file or folder that a stablehlo or onnx file is checked on; empty: drawn ones
    x.num_pictures = 5  # of that folder, the first by name
    return c


def apply_preset(config: ml_collections.ConfigDict, preset: str | None) -> str:
    """Sets the keys in which a preset differs from `recommended`; returns the preset's name.

    `paper` is the letter of the paper, `reference` that of the authors' released code, `c3` that of
    the C-3-Framework as far as it is a matter of keys. The paper does not say how it validates, and
    C-3-Framework does so on the test pictures: there this project's held-out whole pictures stay.

    Raises:
        UserError: no preset of that name.
    """
    preset = preset or "recommended"
    if preset not in PRESETS:
        raise UserError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    config.preset = preset
    if preset == "recommended":
        return preset
    config.update(
        config_dict.ConfigDict(
            {
                "density": {"border": "recenter", "outside": "reference"},
                "input": {"mean": 0.0, "std": 1.0},
                "crop": {"range": "all"},
                "augment": {"contrast": 0.0, "brightness": 0.0, "sharpness": 0.0, "zoom": 0.0},
                "groups": {"binning": "released", "class_weights": "released"},
                "model": {"init": "released", "logit_activation": "prelu"},
                "loss": {"group_weight": 1e-4, "density_scale": 1.0, "block_weight": 0.0},
                "optimizer": {
                    "name": "adam",
                    "learning_rate": 1e-5,
                    "schedule": "constant",
                    "warmup_steps": 0,
                    "head_factor": 1.0,
                    "grad_clip": 0.0,
                    "ema": 0.0,
                },
                "train": {"batch_size": 1, "steps": 500_000, "eval_every": 5000},
            }
        )
    )
    if preset == "paper":
        config.model.update(prior_pool="spp", up_maps=(16, 18), dropout=0.0)
        config.loss.update(density_reduction="sum", group_loss="sigmoid_bce")
        config.crop.update(mode="quarter", stored=300)
        config.augment.when = "stored"
    elif preset == "reference":
        config.crop.update(mode="released", range="released", stored=9, jpeg=75)
        config.augment.clip = False
        config.groups.count = "density"
        config.dataset.update(val_split="released", validate_on="patches")
        config.loss.update(group_loss="softmax_bce")
        config.input.resize = "multiple_of_4"
        config.eval.ground_truth = "reference_py2"
    else:
        # Its grey levels have mean 0 and deviation 1 over each data set: see configs/.
        config.input.update(channels=3, mean=113.0, std=64.0)
        config.crop.update(height=1024, width=1024)  # whole pictures of ShanghaiTech
        config.augment.noise = 0.0
        config.groups.update(count="density", binning="c3")
        config.loss.update(group_loss="softmax_bce", density_scale=100.0)
        config.optimizer.weight_decay = 1e-4
        config.train.update(batch_size=6, steps=66_000, eval_every=660)  # part B: 1000 epochs
    return preset


def data_dir() -> pathlib.Path:
    """The folder of the raw data sets: $CMTL_DATA_DIR, or `data` in the current folder."""
    return pathlib.Path(os.environ.get("CMTL_DATA_DIR") or "data")


def raw_dir(data_set: str) -> str | None:
    """Where the raw data of a data set lies unless a config says; None if it has no such place."""
    folder = _RAW_FOLDERS.get(data_set)
    return folder and str(data_dir() / folder)


def default_workdir(config: ml_collections.ConfigDict) -> pathlib.Path:
    """runs/<config>-<preset>, with the fold where there is one."""
    fold = f"-fold_{config.dataset.fold}" if config.dataset.fold else ""
    return pathlib.Path("runs") / f"{config.name}-{config.preset}{fold}"


def all_folds(config: ml_collections.ConfigDict) -> bool:
    """Whether the config means every fold of a data set cut into folds."""
    return config.dataset.name == "ucf_cc_50" and config.dataset.fold == 0


_CHOICES = {
    "parallel": ("jit", "pmap"),
    "matmul_precision": ("float32", "tensorfloat32"),
    "dataset.name": ("shanghaitech", "ucf_cc_50", "point_folder", "synthetic"),
    "density.border": ("clip_renorm", "recenter"),
    "density.outside": ("clamp", "drop", "reference"),
    "input.channels": (1, 3),
    "input.resize": ("none", "multiple_of_4"),
    "dataset.val_split": ("stratified", "released"),
    "dataset.validate_on": ("whole", "patches"),
    "crop.mode": ("fixed", "quarter", "released"),
    "crop.range": ("centres", "all", "released"),
    "augment.when": ("online", "stored"),
    "groups.count": ("points", "density"),
    "groups.binning": ("quantile", "uniform", "released", "c3"),
    "groups.class_weights": ("none", "inv_sqrt", "released"),
    "model.name": ("cmtl", "single_stage", "mcnn"),
    "model.prior_pool": ("adaptive_max", "spp"),
    "model.prior_fusion": ("features", "film"),
    "model.logit_activation": ("none", "prelu"),
    "model.output_activation": ("relu", "softplus"),
    "model.init": ("whitened", "he", "released"),
    "model.dtype": ("float32", "bfloat16"),
    "loss.group_loss": ("softmax_ce", "softmax_bce", "sigmoid_bce"),
    "loss.density_reduction": ("mean", "sum"),
    "optimizer.name": ("adam", "muon"),
    "optimizer.schedule": ("constant", "cosine"),
    "eval.split": ("auto", "train", "val", "test"),
    "eval.ground_truth": ("points", "density", "reference_py2", "reference_py3"),
    "export.dtype": ("float32", "float16"),
    "export.format": ("h5", "safetensors", "stablehlo", "onnx"),
}

_AT_LEAST_ONE = (
    "density.kernel", "crop.height", "crop.width", "crop.max_buckets", "groups.samples",
    "train.batch_size", "train.steps", "train.eval_every", "train.log_every", "train.keep_latest",
    "train.dead_patience", "train.folds_at_once", "eval.batch_size", "eval.max_buckets",
    "export.num_pictures", "loss.block_side", "dataset.repeat",
)  # fmt: skip

_AT_LEAST_ZERO = (
    "seed", "dataset.val_seed", "dataset.cache_mib", "dataset.num_workers", "crop.stored",
    "input.contrast", "input.detail", "input.close", "augment.noise_level", "augment.brightness",
    "augment.zoom", "loss.group_weight", "loss.block_weight", "loss.block_linear",
    "optimizer.warmup_steps", "optimizer.grad_clip", "optimizer.head_factor",
    "optimizer.weight_decay", "eval.triptychs",
)  # fmt: skip

_POSITIVE = (
    "density.sigma", "input.scale", "input.close_scale", "input.std", "loss.density_scale",
    "optimizer.learning_rate", "optimizer.eps",
)  # fmt: skip

_FRACTIONS = (
    "augment.flip", "augment.noise", "augment.contrast", "augment.sharpness", "augment.grey",
)  # fmt: skip

_BELOW_ONE = (
    "dataset.val_fraction", "model.dropout", "optimizer.ema", "optimizer.b1", "optimizer.b2",
)  # fmt: skip

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "numbers in brackets, such as (16,8)",
}


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks every key and value that a typing slip can spoil.

    Raises:
        UserError: names the key, its value and what it may be.
    """
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"get_config of the config file gives {config!r}, not a ConfigDict")
    defaults = base()

    def value(key: str):
        return _get(config, key)

    def require(holds: bool, key: str, what: str) -> None:
        if not holds:
            raise UserError(f"config.{key} is {value(key)!r}; it must be {what}")

    for key in _keys(config):
        _check_key(key, defaults)
    for key in _keys(defaults):
        try:
            found = value(key)
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(f"config.{key} is missing; start from cmtl_jax.config.base") from error
        kind = type(_get(defaults, key))
        # A whole number is a number, and a list has become a tuple's equal in a JSON file.
        kinds = {float: (float, int), tuple: (tuple, list)}.get(kind, kind)
        holds = isinstance(found, kinds) and (kind is bool or not isinstance(found, bool))
        require(holds, key, _KINDS.get(kind, "a section of keys"))
        require(not isinstance(found, float) or math.isfinite(found), key, "finite")

    for key, choices in _CHOICES.items():
        if value(key) not in choices:
            near = difflib.get_close_matches(str(value(key)), list(map(str, choices)), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            require(False, key, "one of " + ", ".join(map(str, choices)) + hint)
    for key in _AT_LEAST_ONE:
        require(value(key) >= 1, key, "at least 1")
    for key in _AT_LEAST_ZERO:
        require(value(key) >= 0, key, "at least 0")
    for key in _POSITIVE:
        require(value(key) > 0, key, "greater than 0")
    for key in _FRACTIONS:
        require(0 <= value(key) <= 1, key, "between 0 and 1")
    for key in _BELOW_ONE:
        require(0 <= value(key) < 1, key, "at least 0 and below 1")
    if config.input.close:
        holds = config.input.resize == "none"
        require(holds, "input.close", "0 unless config.input.resize is none")
    if config.input.looks:
        numbers = all(isinstance(x, int | float) and x > 0 for x in config.input.looks)
        require(numbers, "input.looks", "numbers greater than 0, such as (0.35,0.7), or ()")
        alone = config.input.resize == "none" and not config.input.close
        require(alone, "input.looks", "() unless config.input.resize is none and input.close is 0")
    if config.crop.stored:
        holds = config.augment.zoom == 0
        require(holds, "augment.zoom", "0 with crop.stored, whose patches are cut once")
    if config.augment.when == "stored":
        holds = config.crop.stored >= 3 and config.crop.stored % 3 == 0
        require(holds, "crop.stored", "a multiple of 3 with augment.when=stored")
    if config.dataset.validate_on == "patches":
        holds = config.crop.stored >= 1
        require(holds, "crop.stored", "at least 1 with dataset.validate_on=patches")
    require(0 <= config.crop.jpeg <= 100, "crop.jpeg", "a quality from 1 to 100, or 0 for none")
    require(config.groups.number >= 2, "groups.number", "at least 2")
    require(config.density.kernel % 2 == 1, "density.kernel", "an odd number of pixels")
    require(_naturals(config.model.up_maps, (2,)), "model.up_maps", "two numbers, such as (16,8)")
    require(
        _naturals(config.model.spp_levels), "model.spp_levels", "numbers from 1 on, such as (4,2,1)"
    )
    require(
        re.fullmatch(r"best|latest|\d+", config.eval.checkpoint) is not None,
        "eval.checkpoint",
        "best, latest or a step",
    )
    if config.dataset.name == "ucf_cc_50":
        require(config.dataset.fold in range(6), "dataset.fold", "a fold from 1 to 5, or 0 for all")
    if config.train.folds_at_once > 1:
        holds = config.crop.mode == "fixed"
        require(
            holds,
            "train.folds_at_once",
            "1 unless config.crop.mode is fixed: all crops must be of one shape",
        )
    if config.dataset.on_device:
        for key, holds, what in (
            ("crop.mode", config.crop.mode == "fixed", "fixed"),
            ("crop.stored", config.crop.stored == 0, "0"),
            ("crop.jpeg", config.crop.jpeg == 0, "0"),
            ("groups.count", config.groups.count == "points", "points"),
            ("train.folds_at_once", config.train.folds_at_once == 1, "1"),
        ):
            require(holds, key, f"{what} with dataset.on_device")
    if all_folds(config):
        require(config.eval.split in ("auto", "test"), "eval.split", "auto or test for all folds")


def check_arguments(arguments: Sequence[str]) -> None:
    """Checks --config and the names of the keys given as --config.KEY=VALUE.

    Args:
        arguments: of the command line.

    Raises:
        UserError: no config file, or no such key; with what was probably meant.
    """
    defaults = base()
    path = None
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        name, equals, value = argument.partition("=")
        if re.fullmatch("--?config", name):
            path = value if equals else following
        elif match := re.fullmatch(r"--?(?:no)?config\.(.+)", name):
            _check_key(match[1], defaults)
    file = pathlib.Path((path or "").partition(":")[0])
    if path is not None and not file.is_file():
        there = sorted(map(str, (file.parent if file.parent.is_dir() else file).glob("*.py")))
        there = there or sorted(map(str, pathlib.Path("configs").glob("*.py")))
        hint = _hint(str(file), there) if there else "name a Python file with get_config"
        raise UserError(f"no config file {file}; {hint}")


def with_packaged(arguments: Sequence[str]) -> list[str]:
    """The command line with configs/NAME.py taken from the installed package where it is not here.

    An installation without a clone has the configs inside the package.
    """
    found, value_follows = [], False
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if value_follows:
            argument = _packaged(argument)
        elif equals and re.fullmatch("--?config", option):
            argument = f"{option}={_packaged(value)}"
        value_follows = not value_follows and re.fullmatch("--?config", argument) is not None
        found.append(argument)
    return found


def _packaged(path: str) -> str:
    file, colon, preset = path.partition(":")
    packaged = pathlib.Path(__file__).parent / file
    own = re.fullmatch(r"configs/\w+\.py", file) and not pathlib.Path(file).is_file()
    return f"{packaged}{colon}{preset}" if own and packaged.is_file() else path


def what(key: str) -> str:
    """What the value of a key is, such as 'a whole number'."""
    try:
        return _KINDS.get(type(_get(base(), key)), "set key by key")
    except (AttributeError, KeyError, TypeError):
        return "another value"


def flat(tree: Mapping[str, Any] | ml_collections.ConfigDict, before: str = "") -> dict[str, Any]:
    """'section.key' -> value of a config or its JSON, where a list is the tuple that it was."""
    found = {}
    for key, value in tree.items():
        if isinstance(value, Mapping | ml_collections.ConfigDict):
            found |= flat(value, f"{before}{key}.")
        else:
            found[before + key] = tuple(value) if isinstance(value, list) else value
    return found


def _get(config: ml_collections.ConfigDict, key: str):
    for part in key.split("."):
        config = config[part]
    return config


def _keys(config: ml_collections.ConfigDict, before: str = "") -> Iterable[str]:
    """Every key that holds a value; the builders check dataset.options."""
    for name, value in config.items():
        key = f"{before}{name}"
        if key == "dataset.options":
            continue
        if isinstance(value, ml_collections.ConfigDict):
            yield from _keys(value, f"{key}.")
        else:
            yield key


def _check_key(key: str, defaults: ml_collections.ConfigDict) -> None:
    node, before = defaults, "config."
    for part in key.split("."):
        if before == "config.dataset.options.":
            return
        if not isinstance(node, ml_collections.ConfigDict) or part not in node:
            there = list(node) if isinstance(node, ml_collections.ConfigDict) else []
            hint = _hint(part, there, before) if there else f"{before[:-1]} is a value"
            raise UserError(f"no key config.{key}; {hint}")
        node, before = node[part], f"{before}{part}."


def _hint(name: str, there: Sequence[str], before: str = "") -> str:
    near = difflib.get_close_matches(name, there, 1)
    if near:
        return f"did you mean {before}{near[0]}?"
    return f"there are {', '.join(before + one for one in there)}"


def _naturals(values: Sequence, lengths: Sequence[int] = range(1, 100)) -> bool:
    return len(values) in lengths and all(type(x) is int and x >= 1 for x in values)
