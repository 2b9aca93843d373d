"""Cross-validation on UCF_CC_50: five folds in one command, every picture tested exactly once.

Fold k is an ordinary run in <work folder>/fold_k. The data set has no official folds and the papers
do not say whether their RMSE is that of all 50 pictures or the mean of the folds' (the MAEs agree,
for folds of one size), so both are given; the pooled one is the default (ours).
"""

import collections
import hashlib
import json
import logging
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

import jax
import ml_collections
import numpy as np

from cmtl_jax import checkpoints as checkpoints_lib
from cmtl_jax import trained_model, weight_average
from cmtl_jax.datasets.ucf_cc_50 import NUM_FOLDS, NUM_PICTURES
from cmtl_jax.errors import UserError
from cmtl_jax.evaluation import evaluate as evaluate_lib
from cmtl_jax.evaluation import report, result_folder, run
from cmtl_jax.input_pipeline import data as data_lib
from cmtl_jax.input_pipeline import extra_pictures
from cmtl_jax.metrics import ImageMetrics
from cmtl_jax.parallel import Parallel
from cmtl_jax.training import continuation
from cmtl_jax.training import train as train_lib

NAME = "ucf_cc_50-cross_validation"
FOLDS = tuple(range(1, NUM_FOLDS + 1))

# Means over pictures that per_image.csv does not give; every fold's has its pictures' number.
_MEANS = (
    "game_1", "game_2", "game_3", "stray", "group_accuracy", "best_constant_mae",
    "brightness_regression_mae",
)  # fmt: skip
_OF_A_FOLD = ("mae", "rmse", "nae", "num_images", "checkpoint_step", "best_constant_mae")


def train(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> int:
    """Trains and evaluates every fold that is not finished, then all 50 pictures together.

    Writes what a run writes to workdir/fold_1 ... fold_5, and workdir/eval/<NAME>/.

    Returns:
        Exit status: 0, or 128 + the signal that stopped a fold (saved; the same command goes on).

    Raises:
        UserError: bad input, a dead density output, or a fold of other settings or pictures.
    """
    _require_all_pictures(config)
    unfinished = []
    for fold in FOLDS:
        own, folder = of_fold(config, workdir, fold)
        if _finished(own, folder):
            logging.info("fold %d of %d is finished in %s", fold, NUM_FOLDS, folder)
        else:
            unfinished.append((own, folder))
    at_once = config.train.folds_at_once
    for together in (unfinished[i : i + at_once] for i in range(0, len(unfinished), at_once)):
        for own, folder in together:
            logging.info("fold %d of %d in %s", own.dataset.fold, NUM_FOLDS, folder)
            if own.init_from:
                _require_unseen(own, folder)
        if status := train_lib.train_together(together):
            return status
    trained = config.copy_and_resolve_references()
    trained.init_from = ""  # what was tested are the folds' own weights
    summarise(trained, workdir)
    return 0


def evaluate(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict:
    """Evaluates every fold from its checkpoint, or from config.init_from's, and all together.

    Returns:
        The content of workdir/eval/<NAME>/metrics.json.

    Raises:
        UserError: a fold has no weights, or weights that have seen its test pictures.
    """
    _require_all_pictures(config)
    for fold in FOLDS:
        _require_unseen(*of_fold(config, workdir, fold))
    for fold in FOLDS:
        run.evaluate_checkpoint(*of_fold(config, workdir, fold))
    return summarise(config, workdir)


def of_fold(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, fold: int
) -> tuple[ml_collections.ConfigDict, pathlib.Path]:
    """The config and the work folder of one fold, 1 to 5.

    Where config.init_from is the work folder of a cross-validation, a fold starts from its own.
    """
    own = config.copy_and_resolve_references()
    own.dataset.fold = fold
    inside = os.path.join(own.init_from, f"fold_{fold}")
    if own.init_from and os.path.isdir(inside):
        own.init_from = inside
    return own, workdir / f"fold_{fold}"


def summarise(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict:
    """Puts the five folds' results together: metrics.json, per_image.csv and report.html.

    Returns:
        The content of metrics.json: `mae`, `rmse` and all other means over the 50 pictures
        (pooled), `mae_mean_of_folds` and `rmse_mean_of_folds`, and each fold's own in `folds`.

    Raises:
        UserError: a fold's results are missing or damaged, or a picture was not tested once.
    """
    results, images = {}, {}
    for fold in FOLDS:
        folder = _results_folder(*of_fold(config, workdir, fold))
        results[fold], images[fold] = _read(folder)
    everything = [image for fold in FOLDS for image in images[fold]]
    _require_each_once([image.id for image in everything], str(workdir))
    result = combine(results, images)
    result["protocol"] = _protocol(config, results, everything)
    folder = result_folder.of(config, workdir, NAME, own=True)
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        report.write_metrics_json(folder / "metrics.json", result)
        report.write_per_image_csv(
            folder / "per_image.csv",
            everything,
            fold=[fold for fold, one in images.items() for _ in one],
        )
        report.write_conditions_csv(folder / report.CONDITIONS, everything)
        report.write_report(
            folder / "report.html",
            title="ucf_cc_50, cross-validation",
            metrics=result,
            protocol=result["protocol"]
            | {name: _in_words(one) for name, one in result["folds"].items()},
            images=everything,
        )
        logging.info(
            "ucf_cc_50, %d pictures, each tested once: MAE %.2f, RMSE %.2f (called MSE in papers; "
            "mean of the folds %.2f); see %s", result["num_images"], result["mae"], result["rmse"],
            result["rmse_mean_of_folds"], folder / "report.html",
        )  # fmt: skip
    return result


def combine(
    results: Mapping[int, Mapping], images: Mapping[int, Sequence[ImageMetrics]]
) -> dict:
    """The figures of a cross-validation, without their protocol.

    Args:
        results: metrics.json of each fold.
        images: the count metrics of each fold's pictures; GAME is not looked at.

    Returns:
        Means over all pictures by the names of `CountMetrics.result`, the means of the folds' MAE
        and RMSE, all in people per picture, and `folds`.
    """
    pooled = evaluate_lib.aggregate([image for fold in images for image in images[fold]]).result()
    known = ("mae", "rmse", "nae", "nae_num_images", "num_images",
             "mean_count_true", "mean_count_pred")  # fmt: skip
    numbers = np.array([len(images[fold]) for fold in results], np.float64)
    means = {
        name: float(np.average([results[fold][name] for fold in results], weights=numbers))
        for name in _MEANS
        if all(results[fold].get(name) is not None for fold in results)
    }
    return (
        {name: pooled[name] for name in known}
        | means
        | {
            f"{name}_mean_of_folds": float(np.mean([results[fold][name] for fold in results]))
            for name in ("mae", "rmse")
        }
        | {
            "folds": {
                f"fold_{fold}": {name: results[fold].get(name) for name in _OF_A_FOLD}
                for fold in results
            }
        }
    )


def _require_all_pictures(config: ml_collections.ConfigDict) -> None:
    """A picture that is missing is told before the training, not after it."""
    own, _ = of_fold(config, pathlib.Path(), 1)
    data = data_lib.load(own, training=False)
    _require_each_once(
        [entry.id for pictures in data.splits.values() for entry in pictures.index],
        "the raw folder",
    )


def _require_each_once(ids: Sequence[str], where: str) -> None:
    """
    Raises:
        UserError: these are not the 50 pictures of the data set, each once.
    """
    expected = {str(number) for number in range(1, NUM_PICTURES + 1)}
    times = collections.Counter(ids)
    wrong = {
        "missing": sorted(expected - times.keys(), key=int),
        "more than once": sorted(id_ for id_, number in times.items() if number > 1),
        "not of UCF_CC_50": sorted(times.keys() - expected),
    }
    if any(wrong.values()):
        said = "; ".join(f"{what}: {', '.join(which)}" for what, which in wrong.items() if which)
        raise UserError(
            f"{where} does not give every picture of UCF_CC_50 exactly once ({said}); complete the "
            "raw folder (config.dataset.raw_dir) and use one config.dataset.options.folds for all "
            "folds"
        )


def _finished(config: ml_collections.ConfigDict, folder: pathlib.Path) -> bool:
    """Whether a fold is trained to the end and its results are those of the weights wanted.

    Raises:
        UserError: it was trained with other settings or on other pictures.
    """
    if not (folder / checkpoints_lib.FOLDER).is_dir():
        return False
    metrics = _results_folder(config, folder, trained=True) / "metrics.json"
    reader = None
    try:
        reader = checkpoints_lib.Checkpoints(folder, read_only=True)
        steps = reader.steps()
        if not steps or steps[-1] < config.train.steps or not metrics.exists():
            return False
        about, step = reader.about(steps[-1]), reader.find(config.eval.checkpoint)
    except checkpoints_lib.DamagedError:  # training knows what to do about it
        return False
    finally:
        if reader is not None:
            reader.close()
    try:
        result, _ = _read(metrics.parent)
    except UserError:
        return False
    data = data_lib.load(config)
    now = {
        "config": config.to_dict(),
        "data": data.name,
        "train_ids_sha256": run.ids_sha256(data.pictures("train")),
    }
    continuation.check(about, now, folder)
    tested = result["protocol"].get("evaluated pictures sha256")
    return result["checkpoint_step"] == step and tested == run.ids_sha256(data.pictures("test"))


def _require_unseen(config: ml_collections.ConfigDict, folder: pathlib.Path) -> None:
    """Checks the weights of config.init_from, or of a fold's work folder.

    Raises:
        UserError: there are none, or they were trained on this fold's pictures.
    """
    source = pathlib.Path(config.init_from or folder)
    if os.path.isdir(source):
        reader = checkpoints_lib.Checkpoints(source, read_only=True)
        try:
            step = reader.find("best" if config.init_from else config.eval.checkpoint)
            there = [reader.about(step)["config"]["dataset"]]
        finally:
            reader.close()
    elif config.init_from:  # a file or a name; what the authors released does not say
        trained = trained_model.restore(config.init_from, Parallel())
        there = [run.config.dataset for run in weight_average.runs(trained)]
    else:
        raise UserError(
            f"no weights at {source}: no such work folder; train all folds first, or evaluate one "
            f"with --config.dataset.fold={config.dataset.fold}"
        )
    d = config.dataset
    if any(map(extra_pictures.in_ucf_cc_50, there)):
        logging.warning(
            "the weights of %s were trained on part A of ShanghaiTech, which has 7 pictures of "
            "UCF_CC_50 in its train split (16, 25, 28, 32, 41, 46, 49): the figures are too good",
            source,
        )
    last = there[-1]  # those of a mean are of one data set, fold and option
    if last["name"] != d.name:
        return
    seen = (last["options"].get("folds", "sequential"), last["fold"])
    if seen != (d.options.get("folds", "sequential"), d.fold):
        raise UserError(
            f"the weights of {source} were trained for fold {seen[1]} of the folds {seen[0]!r}: "
            f"they have seen pictures that fold {d.fold} of {d.options.folds!r} tests; name the "
            "work folder of a cross-validation with the same config.dataset.options.folds"
        )


def _results_folder(
    config: ml_collections.ConfigDict, folder: pathlib.Path, *, trained: bool = False
) -> pathlib.Path:
    """Where evaluation puts a fold's results; `trained`: those of the folder's own weights."""
    name = f"ucf_cc_50-fold_{config.dataset.fold}-test"
    own = not trained and (folder / checkpoints_lib.FOLDER).exists()
    return result_folder.of(config, folder, name, own=own)


def _read(folder: pathlib.Path) -> tuple[dict, list[ImageMetrics]]:
    """metrics.json and per_image.csv of a fold.

    Raises:
        UserError: they are missing or damaged.
    """
    try:
        result = json.loads((folder / "metrics.json").read_text())
        images = report.read_per_image_csv(folder / "per_image.csv")
        if len(images) != result["num_images"]:
            raise ValueError(f"{len(images)} of {result['num_images']} pictures in per_image.csv")
        _ = result["mae"], result["rmse"], result["checkpoint_step"], result["protocol"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the results in {folder} are missing or damaged ({type(error).__name__}: {error}); "
            "write them again with --mode=eval"
        ) from error
    return result, images


def _protocol(
    config: ml_collections.ConfigDict,
    results: Mapping[int, Mapping],
    images: Sequence[ImageMetrics],
) -> dict[str, str]:
    """What the folds' protocols agree in; where they differ, each fold's."""
    protocols = {fold: result["protocol"] for fold, result in results.items()}
    said = {}
    for name in protocols[1]:
        values = {fold: str(protocol.get(name)) for fold, protocol in protocols.items()}
        if name == "trained on":
            for fold, value in values.items():
                values[fold] = re.sub(
                    rf"\bucf_cc_50-fold_{fold}\b", "ucf_cc_50 (the other four folds)", value
                )
        same = len(set(values.values())) == 1
        said[name] = values[1] if same else "; ".join(f"fold_{k} {v}" for k, v in values.items())
    ids = "\n".join(sorted(image.id for image in images))
    folds = config.dataset.options.get("folds", "sequential")
    return said | {
        "data set": "ucf_cc_50",
        "split": "cross-validation",
        "folds": f"{NUM_FOLDS} ({folds}"
        + (": pictures 1-10, 11-20, ...)" if folds == "sequential" else ")")
        + "; each picture tested once, in its fold",
        "figures": f"mae and rmse: pooled over the {len(images)} pictures; "
        "mae_mean_of_folds and rmse_mean_of_folds: means of the five folds' own",
        "evaluated pictures sha256": hashlib.sha256(ids.encode()).hexdigest(),
    }


def _in_words(fold: Mapping) -> str:
    step = "" if fold["checkpoint_step"] is None else f", step {fold['checkpoint_step']}"
    return f"MAE {fold['mae']:.1f}, RMSE {fold['rmse']:.1f}, {fold['num_images']} pictures{step}"
