"""Evaluates a checkpoint and writes metrics.json, per_image.csv and report.html."""

import dataclasses
import hashlib
import logging
import math
import pathlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from cmtl_jax import checkpoints, trained_model, version, weight_average, work_folder
from cmtl_jax import metrics as metrics_lib
from cmtl_jax.errors import UserError
from cmtl_jax.evaluation import evaluate, ground_truth, report, result_folder, shown_pictures
from cmtl_jax.input_pipeline import data as data_lib
from cmtl_jax.input_pipeline.patches import Patches
from cmtl_jax.input_pipeline.pictures import Pictures
from cmtl_jax.input_pipeline.resize import ResizedPictures
from cmtl_jax.input_pipeline.seen import Seen, again_text
from cmtl_jax.metrics import ImageMetrics
from cmtl_jax.parallel import Parallel
from cmtl_jax.prediction.counter import Counter
from cmtl_jax.trained_model import TrainedModel

GROUP_CROPS = 4  # of each picture, that the accuracy of count groups is taken from

_RESIZED = {
    "none": "not resized; zero-padded to multiples of 4",
    "multiple_of_4": "each side resized down to a multiple of 4 (bilinear), unless one is below 4",
}


def evaluate_checkpoint(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    *,
    parallel: Parallel | None = None,
    data: data_lib.Data | None = None,
    before: Mapping[str, Any] | None = None,
) -> dict:
    """Evaluates weights on the config's split and writes workdir/eval/<dataset>-<split>/.

    Those of other weights than workdir's own go to a folder beside it (see `result_folder`).

    The weights are those of config.init_from (a work folder or a released file), else those of
    workdir; of a work folder, those of its checkpoint config.eval.checkpoint.
    Their own preprocessing is used, the data set is the config's; `data` is that of the config,
    loaded here where it is not given.
    `before` is the result of the weights that training started from, on the same pictures; its
    errors are kept as mae_before, rmse_before and nae_before.

    Returns:
        The content of metrics.json.

    Raises:
        UserError: there is nothing to evaluate, or no such data.
    """
    parallel = parallel or Parallel(precision=config.matmul_precision)
    began = time.monotonic()
    if config.init_from:
        work_folder.make(workdir)
    source = config.init_from or workdir
    trained = trained_model.restore(source, parallel, config.eval.checkpoint)
    used = config.copy_and_resolve_references()
    used.input.update(trained.config.input)
    _tell_of_other_input(config, used, source)
    # Pictures are read as their weights want them, and those of other data sets are no split's.
    if data is None or used.input != config.input or data.resolve(used.eval.split) == "train":
        data = data_lib.load(used, training=False)
    split = data.resolve(used.eval.split)
    pictures = data_lib.whole_pictures(used, data, split)
    step = "" if trained.step is None else f"step {trained.step} of "
    step = "the mean of " if weight_average.is_one(trained) else step
    logging.info("evaluating %s%s on %s-%s", step, source, data.name, split)
    single = Parallel("jit", jax.local_devices()[:1], precision=config.matmul_precision)
    close = _close_weights(config, trained, single)
    weights = [trained, close] if close else [trained]
    seen = _seen_in_training(used, weights, data, split)
    if seen:
        logging.warning(
            "%s was trained on %d of these %d pictures: what it counts there says little of new ones",
            " with ".join(one.source for one in weights), seen, len(data.pictures(split)),
        )  # fmt: skip
    alone = dataclasses.replace(trained, params=single.replicate(parallel.host(trained.params)))
    counter = Counter(alone, single, close and Counter(close, single))
    evaluator = evaluate.Evaluator(
        trained.model, used, pictures, trained.groups, parallel, second_look=counter.second_look
    )
    images = evaluator(trained.params, progress=parallel.process_index == 0)
    if not trained.groups.edges:  # a released file does not say them
        images = [dataclasses.replace(image, group_true=None) for image in images]
    seconds = time.monotonic() - began
    result = evaluate.aggregate(images).result()
    result["group_accuracy_whole"] = result.pop("group_accuracy")
    result |= _group_accuracy(used, trained, data.pictures(split), parallel)
    if before is not None:
        result |= {f"{name}_before": before[name] for name in ("mae", "rmse", "nae")}
    result |= _baselines(data, data.pictures(split), images) | {
        "checkpoint_step": trained.step,
        "num_seen_in_training": seen,
        "programs_compiled": evaluator.traces,
        "seconds": round(seconds, 1),
        "protocol": protocol(used, data, split, trained),
    }
    if close:
        result["protocol"]["weights where people stand close"] = close.source
    if seen:
        result["protocol"]["seen in training"] = f"{seen} of the {len(images)} pictures"
    if parallel.process_index == 0:
        own = (workdir / checkpoints.FOLDER).exists()
        folder = result_folder.of(config, workdir, f"{data.name}-{split}", own=own)
        folder.mkdir(parents=True, exist_ok=True)
        report.write_metrics_json(folder / "metrics.json", result)
        report.write_per_image_csv(folder / "per_image.csv", images)
        report.write_conditions_csv(folder / report.CONDITIONS, images)
        report.write_report(
            folder / "report.html",
            title=f"{data.name}, {split}",
            metrics=result,
            protocol=result["protocol"],
            images=images,
            triptychs=_triptychs(config.eval.triptychs, counter, pictures, images),
            curves=_curves(source),
        )
        constant = ""
        if "best_constant_mae" in result:
            constant = f"; the best constant answer has MAE {result['best_constant_mae']:.2f}"
        logging.info(
            "%s-%s, %d pictures: MAE %.2f, RMSE %.2f (called MSE in papers)%s; see %s", data.name,
            split, result["num_images"], result["mae"], result["rmse"], constant,
            folder / "report.html",
        )  # fmt: skip
        if before is not None:
            logging.info(
                "%s-%s: MAE %.2f before training, %.2f after", data.name, split, before["mae"],
                result["mae"],
            )  # fmt: skip
    parallel.barrier("evaluated")
    return result


def _curves(source: str | pathlib.Path) -> dict[str, list[dict]]:
    """What training logged, by the name of the run: several where their weights are averaged."""
    runs = trained_model.sources(source)
    return {
        name: work_folder.read_jsonl(pathlib.Path(run) / "metrics.jsonl")
        for name, run in zip(trained_model.names(runs), runs, strict=True)
    }


def _tell_of_other_input(
    asked: ml_collections.ConfigDict, used: ml_collections.ConfigDict, source: str | pathlib.Path
) -> None:
    other = {key: value for key, value in used.input.items() if value != asked.input[key]}
    if other:
        logging.info(
            "pictures are prepared as the weights of %s want them: %s; this config's own (%s) are "
            "for training",
            source,
            ", ".join(f"input.{key} {value}" for key, value in other.items()),
            ", ".join(f"{asked.input[key]}" for key in other),
        )


def protocol(
    config: ml_collections.ConfigDict, data: data_lib.Data, split: str, trained: TrainedModel
) -> dict[str, str]:
    """All that a number needs beside it to be comparable."""
    picked = config.eval.checkpoint
    mean_of = weight_average.text(trained)
    seeds = dict.fromkeys(str(run.config.seed) for run in weight_average.runs(trained))
    model = f"model {trained.config.model.name}"
    groups = (
        f"edges of binning {trained.config.groups.binning} from the counts of training crops; "
        f"accuracy on {GROUP_CROPS} such crops of each picture at seeded random positions. The "
        "table of pictures has the group of each whole count, mostly the last"
    )
    trained_on = (
        f"{trained.about['data']}, preset {trained.config.preset}, {model}, "
        f"seed {'/'.join(seeds)}"
    )
    if not trained.about["config"]:
        picked, groups = "as released", "edges not known"
        trained_on = f"{trained.about['data']}, {model}"
    elif picked == "best" and not trained.config.train.keep_best:
        picked = "latest"
    elif picked == "best" and trained.config.dataset.val_fraction:
        picked = f"best MAE on {data_lib.describe_validation(trained.config)}"
    elif picked != "latest":
        picked = "the steps named" if mean_of else f"step {trained.step}"
    seen = ", ".join(filter(None, (Seen.of(config.input).text(), again_text(config.input))))
    return {
        "data set": data.name,
        "split": split,
        "pictures": f"whole, every one exactly once, {seen + ', ' if seen else ''}"
        f"{_RESIZED[config.input.resize]}",
        "ground truth": f"{ground_truth.RULES[config.eval.ground_truth]} (points outside the "
        f"picture: {config.density.outside})",
        "density maps": f"Gaussian {config.density.kernel}x{config.density.kernel}, sigma "
        f"{config.density.sigma:g}, border {config.density.border}",
        "map quality": metrics_lib.MAP_QUALITY_CONVENTION,
        "weights": trained.source,
        **({"mean of the weights of": mean_of} if mean_of else {}),
        "selection": picked,
        "count groups": groups,
        "trained on": trained_on,
        "trained by": trained.about.get("program", "unknown"),
        "evaluated by": version.describe(),
        "training pictures sha256": trained.about["train_ids_sha256"],
        "evaluated pictures sha256": ids_sha256(data.pictures(split)),
    }


def _close_weights(
    config: ml_collections.ConfigDict, trained: TrainedModel, parallel: Parallel
) -> TrainedModel | None:
    """Those of config.eval.close_weights.

    Raises:
        UserError: there are none there, or one of both wants pictures resized.
    """
    if not config.eval.close_weights:
        return None
    close = trained_model.restore(config.eval.close_weights, parallel)
    for one in (trained, close):
        if one.config.input.resize != "none":
            raise UserError(
                f"config.eval.close_weights: {one.source} wants pictures resized (input.resize), "
                "and maps of two sizes are no one map; name weights that do not"
            )
    return close


def _seen_in_training(
    config: ml_collections.ConfigDict,
    weights: Iterable[TrainedModel],
    data: data_lib.Data,
    split: str,
) -> int:
    """How many pictures of a split the runs of the weights trained on, as far as they say."""
    ids = set()
    runs = [run for trained in weights for run in weight_average.runs(trained)]
    # Runs that differ in their seeds alone saw the same.
    for run in {run.config.dataset.to_json(): run for run in runs}.values():
        if run.data != "not known":
            ids |= data_lib.trained_on(config, run.config, split)
    return sum(entry.id in ids for entry in data.pictures(split).index)


def ids_sha256(pictures: Pictures) -> str:
    """Hash of the sorted ids of pictures, one a line, each once."""
    ids = sorted({entry.id for entry in pictures.index})
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def _group_accuracy(
    config: ml_collections.ConfigDict,
    trained: TrainedModel,
    pictures: Pictures,
    parallel: Parallel,
) -> dict[str, float | int]:
    """Share of right count groups among crops like those of the training, which groups are of."""
    # Zoomed crops are resized to one size in training, which Patches does not do.
    rule = dataclasses.replace(data_lib.crop_rule(trained.config), zoom=0.0)
    crops = Patches(pictures, rule, GROUP_CROPS, seed=0)
    images: list[ImageMetrics] = []
    if trained.groups.edges and trained.config.model.name == "cmtl":
        counter = evaluate.Evaluator(trained.model, config, crops, trained.groups, parallel)
        images = counter(trained.params)
    classified = [image for image in images if image.group_pred is not None]
    hits = sum(image.group_true == image.group_pred for image in classified)
    return {
        "group_accuracy": hits / len(classified) if classified else math.nan,
        "group_num_crops": len(classified),
    }


def _baselines(
    data: data_lib.Data, pictures: Pictures, images: list[ImageMetrics]
) -> dict[str, float]:
    """What answers without a network would get: the least that a count has to beat.

    They learn from the data set's own training pictures, whatever a run adds to or repeats of them;
    without any there are none.
    """
    if not len(data.own):
        return {}
    true = [image.count_true for image in images]
    counts = [entry.count for entry in data.own.index]
    regression = np.linalg.lstsq(_brightness(data.own), np.array(counts, np.float64), rcond=None)[0]
    errors = _brightness(pictures) @ regression - true
    return {
        "best_constant_mae": metrics_lib.best_constant_mae(counts, true),
        "brightness_regression_mae": float(np.abs(errors).mean()),
    }


def _brightness(pictures: Pictures) -> np.ndarray:
    """A row (1, mean, standard deviation) of the grey levels of each picture."""
    images = (pictures[i].image for i in range(len(pictures)))
    return np.array([(1.0, image.mean(), image.std()) for image in images])


def _triptychs(
    number: int, counter: Counter, pictures: Pictures | ResizedPictures, images: list[ImageMetrics]
) -> list[report.Triptych]:
    """The pictures to show, counted once more for their maps."""
    shown = []
    for note, positions in shown_pictures.choose(images, number).items():
        for position in positions:
            picture = pictures[position]
            shown_image = np.rint(picture.image).astype(np.uint8)  # resized ones hold fractions
            density = counter.density_of_seen(
                picture.image,
                pictures.pixels_size(position),
                lambda channels, at=position: pictures.pixels(at, channels),
            )
            shown.append(
                report.Triptych(
                    picture.id,
                    shown_image if shown_image.shape[2] == 3 else shown_image[..., 0],
                    picture.density,
                    density,
                    images[position].count_true,
                    images[position].count_pred,
                    note,
                )
            )
    return shown
