"""Evaluation of whole pictures, each exactly once at any batch size and number of devices."""

import dataclasses
from collections.abc import Callable, Iterable

import ml_collections
import numpy as np
from flax import linen as nn

from cmtl_jax import metrics as metrics_lib
from cmtl_jax.evaluation import ground_truth
from cmtl_jax.input_pipeline import data as data_lib
from cmtl_jax.input_pipeline.batch import shaped
from cmtl_jax.input_pipeline.count_groups import CountGroups
from cmtl_jax.input_pipeline.loader import Shard
from cmtl_jax.input_pipeline.patches import Patches
from cmtl_jax.input_pipeline.pictures import Pictures
from cmtl_jax.metrics import CountMetrics, ImageMetrics
from cmtl_jax.parallel import Parallel


def make_eval_step(model: nn.Module):
    """The pure evaluation step: step(params, batch) -> CmtlOutput."""

    def step(params, batch):
        return model.apply({"params": params}, batch.image, batch.size)

    return step


class Evaluator:
    """Counts the people of a set of pictures and holds the counts against the head points."""

    def __init__(
        self,
        model: nn.Module,
        config: ml_collections.ConfigDict,
        pictures: Pictures | Patches,
        groups: CountGroups,
        parallel: Parallel,
        passes: int = 1,
        second_look: Callable[..., np.ndarray] | None = None,
    ):
        """Sets the evaluation up.

        Args:
            model: the network.
            config: of the run.
            pictures: to count.
            groups: count groups.
            parallel: devices.
            passes: times that all pictures will be counted, which programs may pay off in.
            second_look: `Counter.second_look` of the weights that are evaluated; pictures are then
                `Pictures`. None: each is counted once, as in the validations of a training.
        """
        self._config, self._pictures, self._groups = config, pictures, groups
        self._parallel, self._passes = parallel, passes
        self._second_look = second_look
        self._step = parallel.eval_step(make_eval_step(model))
        self._rule = config.eval.ground_truth
        if isinstance(pictures, Patches) and self._rule.startswith("reference"):
            self._rule = "density"  # their training script does not resize the maps of patches
        self._batch_size = parallel.round_up(config.eval.batch_size)

    @property
    def traces(self) -> int:
        """Number of compiled programs."""
        return self._step.traces()

    def __call__(self, params, *, progress: bool = False) -> list[ImageMetrics]:
        """Metrics of every picture, in the order of the pictures; the same in every process.

        Args:
            params: replicated.
            progress: show a progress bar.
        """
        shard = Shard(self._parallel.process_index, self._parallel.process_count)
        plan = data_lib.evaluation_plan(
            self._config, self._pictures, self._batch_size, self._passes
        )
        rows_here = self._batch_size // shard.count
        self._step.prepare(
            params, (shaped(shape, rows_here, self._pictures.channels) for shape in plan.shapes)
        )
        stream = data_lib.evaluation_stream(
            self._config, plan, self._pictures, self._groups, shard=shard
        )
        rows = []
        for planned, batch in _with_progress(stream, progress, len(self._pictures)):
            output = self._parallel.local(self._step(params, batch))
            for i, row in enumerate(shard.rows(self._batch_size)):
                if row < len(planned.positions):
                    logits = None if output.group_logits is None else output.group_logits[i]
                    position = planned.positions[row]
                    measured = self._measure(position, output.density[i, :, :, 0], logits)
                    rows.append([position, *_to_row(measured)])
        gathered = self._parallel.gather(np.array(rows, np.float64).reshape(-1, _ROW))
        if len(gathered) != len(self._pictures):
            raise RuntimeError(f"{len(gathered)} results for {len(self._pictures)} pictures")
        index = self._pictures.index
        return [
            _from_row(index[int(row[0])].id, row[1:]) for row in gathered[gathered[:, 0].argsort()]
        ]

    def _measure(self, position: int, density: np.ndarray, logits: np.ndarray | None):
        picture = self._pictures[position]
        height, width = picture.image.shape[:2]
        density = density[:height, :width]
        if self._second_look:
            size = self._pictures.pixels_size(position)
            density = self._second_look(
                density, size, lambda channels: self._pictures.pixels(position, channels)
            )
        by_density = self._config.groups.count == "density"
        people = picture.density.sum(dtype=np.float64) if by_density else len(picture.points)
        return metrics_lib.measure(
            picture.id,
            density,
            picture.points,
            picture.density,
            self._groups(people),
            None if logits is None else int(logits.argmax()),
            ground_truth.count(self._rule, self._pictures.original(position)),
            picture.image,
        )


def aggregate(images: Iterable[ImageMetrics]) -> CountMetrics:
    """All pictures' metrics in one accumulator."""
    total = CountMetrics.empty()
    for image in images:
        total = total.add(image)
    return total


_NUMBERS = [field.name for field in dataclasses.fields(ImageMetrics) if field.name != "id"]


# Position, the numbers, and the levels of GAME in place of their tuple.
_ROW = 1 + len(_NUMBERS) - 1 + len(metrics_lib.GAME_LEVELS)


def _to_row(image: ImageMetrics) -> list[float]:
    """Numbers of a picture in a flat row; None becomes nan."""
    values = [getattr(image, name) for name in _NUMBERS]
    flat = [x for value in values for x in (value if isinstance(value, tuple) else (value,))]
    return [np.nan if value is None else float(value) for value in flat]


def _from_row(id_: str, row: np.ndarray) -> ImageMetrics:
    values, numbers = {}, list(map(float, row))
    for name in _NUMBERS:
        if name == "game":
            values[name] = tuple(numbers[: len(metrics_lib.GAME_LEVELS)])
            del numbers[: len(metrics_lib.GAME_LEVELS)]
        else:
            values[name] = numbers.pop(0)
    for name in ("group_true", "group_pred"):
        values[name] = None if np.isnan(values[name]) else int(values[name])
    values["count_true"] = metrics_lib.whole(values["count_true"])
    return ImageMetrics(id=id_, **values)


def _with_progress(stream, show: bool, total: int):
    if not show:
        yield from stream
        return
    from tqdm import tqdm  # noqa: PLC0415  only people who watch need it

    with tqdm(total=total, unit="picture", desc="evaluating") as bar:
        for planned, batch in stream:
            yield planned, batch
            bar.update(len(planned.positions))
