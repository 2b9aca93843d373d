"""Tasks of this project's side: its own functions, as its commands call them."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import cmtl_jax
from cmtl_jax import compilation_cache, pictures, trained_model, version
from cmtl_jax import config as base_config
from cmtl_jax.benchmark import inputs
from cmtl_jax.benchmark.settings import GROUPS
from cmtl_jax.benchmark.task import Task
from cmtl_jax.datasets import density_map, prepare
from cmtl_jax.evaluation import evaluate as evaluate_lib
from cmtl_jax.input_pipeline import data as data_lib
from cmtl_jax.input_pipeline.batch import Batch, Crop, collate
from cmtl_jax.input_pipeline.count_groups import CountGroups
from cmtl_jax.input_pipeline.loader import Shard
from cmtl_jax.interop import export
from cmtl_jax.models import layers
from cmtl_jax.models.layers import STRIDE
from cmtl_jax.parallel import Parallel
from cmtl_jax.prediction.tiles import HALO
from cmtl_jax.trained_model import TrainedModel
from cmtl_jax.training import optimizer
from cmtl_jax.training import state as state_lib
from cmtl_jax.training import steps as steps_lib


def start() -> None:
    """Once in a process, before its tasks: what the project's commands do."""
    compilation_cache.enable()


def _parallel(precision: str, devices: int | None = None) -> Parallel:
    """For products of that precision; that of bfloat16 is the model's own."""
    precision = "float32" if precision == "bfloat16" else precision
    return Parallel("jit", jax.devices()[:devices], precision=precision)


def about() -> Task:
    """The devices, and the versions of what computes."""
    return Task(
        lambda: None,
        result=lambda: {
            "program": version.describe(),
            "jax": jax.__version__,
            "platform": jax.default_backend(),
            "devices": [device.device_kind for device in jax.devices()],
        },
    )


def write_weights(path: str, dtype: str) -> Task:
    """Writes first weights in the released format, which both sides read."""

    def run() -> None:
        config = base_config.base()
        config.model.update(init="he", dtype=dtype)
        config.loss.density_scale = inputs.DENSITY_SCALE
        model = trained_model.build_model(config)
        params = Parallel().initialise(
            lambda: trained_model.init_params(model, 0, config.input.channels)
        )
        groups = CountGroups(
            edges=tuple(float(10 * i) for i in range(1, GROUPS)),
            class_weights=tuple(inputs.CLASS_WEIGHTS.tolist()),
            histogram=(1,) * GROUPS,
        )
        about = {
            "config": config.to_dict(),
            "groups": groups.to_json(),
            "program": version.describe(),
            "data": "none",
            "train_ids_sha256": "",
        }
        trained = TrainedModel(model, params, config, groups, about, 0, path)
        export.write(pathlib.Path(path), export.convert(trained), trained)

    return Task(run)


def _config(dataset: dict[str, Any]) -> ml_collections.ConfigDict:
    """The base configuration with keys of config.dataset set."""
    config = base_config.base()
    options = dataset.get("options", {})
    config.dataset.update({key: value for key, value in dataset.items() if key != "options"})
    config.dataset.options.update(options)
    base_config.validate(config)
    return config


def _pictures(config: ml_collections.ConfigDict, number: int) -> tuple[data_lib.Data, str]:
    """Data of a split's first pictures, and the split."""
    data = data_lib.load(config, training=False)
    split = data.resolve("auto")
    pictures = data.pictures(split)
    first = pictures.subset(range(min(number, len(pictures))))
    return dataclasses.replace(data, splits={split: first}), split


def prepare_pictures(dataset: dict[str, Any], number: int, folder: str) -> Task:
    """Prepares a data set, and writes its first pictures for readers without TFDS.

    They are as people have them who use PyTorch: encoded pictures, and density maps and head points
    as NumPy files: 0.picture, 0.density.npy, 0.points.npy, 1.picture, ...
    """
    found: dict[str, Any] = {}

    def run() -> None:
        config = _config(dataset)
        data, split = _pictures(config, number)
        index = data.pictures(split).index
        d = config.dataset
        prepared = prepare.prepare(
            d.name,
            rule=density_map.DensityRule(**config.density),
            raw_dir=d.raw_dir or None,
            tfds_dir=d.tfds_dir or None,
            options=d.options.to_dict(),
        )
        target = pathlib.Path(folder)
        target.mkdir(parents=True)
        for i, entry in enumerate(index):
            record = prepared.splits[split][i]
            if record.id != entry.id:
                raise ValueError(f"picture {i} is {record.id}, not {entry.id}")
            (target / f"{i}.picture").write_bytes(record.image_bytes)
            np.save(target / f"{i}.density.npy", record.density)
            np.save(target / f"{i}.points.npy", record.points)
        found["sizes"] = [(entry.height, entry.width) for entry in index]

    return Task(run, result=lambda: found)


def objective() -> steps_lib.Objective:
    """Of the training step, as the baseline's."""
    return steps_lib.Objective(
        class_weights=inputs.CLASS_WEIGHTS,
        group_weight=inputs.GROUP_WEIGHT,
        group_loss="softmax_ce",
        density_reduction="mean",
        density_scale=inputs.DENSITY_SCALE,
    )


def batch_of(batch: int, height: int, width: int) -> Batch:
    """The crops of cmtl_jax.benchmark.inputs."""
    made = inputs.crops(batch, height, width)
    return Batch(
        image=made.image[..., None],
        density=made.density[..., None],
        size=np.full((batch, 2), (height, width), np.int32),
        count=made.density.sum(axis=(1, 2)),
        group=made.group,
        weight=np.ones(batch, np.float32),
    )


def train_step(
    weights: str,
    precision: str,
    batch: int,
    height: int,
    width: int,
    devices: int | None = None,
) -> Task:
    """The step of a training: Adam without averaging, clipping or decay, as the baseline's."""
    parallel = _parallel(precision, devices)
    trained = trained_model.restore(weights, parallel)
    settings = trained.config.optimizer
    settings.update(
        learning_rate=inputs.LEARNING_RATE, schedule="constant", warmup_steps=0,
        head_factor=1.0, grad_clip=0.0, ema=0.0,
    )  # fmt: skip
    tx = optimizer.build(settings, 1)
    step = parallel.train_step(
        steps_lib.make_train_step(trained.model, tx, ema_decay=0.0, seed=0), objective()
    )
    state = parallel.replicate(state_lib.create(trained.params, tx, ema=False))
    crops = batch_of(parallel.round_up(batch), height, width)
    metrics: dict[str, Any] = {}

    def run() -> None:
        nonlocal state, metrics
        state, metrics = step(state, crops)

    def result() -> dict[str, float]:
        part = parallel.host(metrics["density_loss"])
        return {"density_loss": float(part.sum / part.count)}

    return Task(run, lambda: jax.block_until_ready((state, metrics)), result)


def forward(weights: str, precision: str, batch: int, height: int, width: int) -> Task:
    """Density and logits of a batch, by the step of the evaluation."""
    parallel = _parallel(precision)
    trained = trained_model.restore(weights, parallel)
    step = parallel.eval_step(evaluate_lib.make_eval_step(trained.model))
    crops = batch_of(parallel.round_up(batch), height, width)
    output: Any = None

    def run() -> None:
        nonlocal output
        output = step(trained.params, crops)

    return Task(
        run,
        lambda: jax.block_until_ready(output),
        lambda: {"count": float(np.asarray(output.density[:batch], np.float64).sum())},
    )


def predict(
    weights: str, precision: str, height: int = 0, width: int = 0, path: str = "", save: str = ""
) -> Task:
    """The density of one picture: of a file, or of an array of that size.

    Args:
        weights: of the counter.
        precision: of its products.
        height: of the array, pixels.
        width: likewise.
        path: of the file; it is read each time.
        save: file that the density map is written to, '' for none.
    """
    if precision == "tensorfloat32":
        # A counter is loaded without a word on precision: what it would be without it is said here.
        jax.config.update("jax_default_matmul_precision", precision)
    counter = cmtl_jax.load(weights)
    picture = path or inputs.picture(height, width)
    found: dict[str, float] = {}

    def run() -> None:
        counted = counter(picture)
        found["count"] = counted.count
        if save:
            np.save(save, counted.density)

    return Task(run, result=lambda: found)


def whole(weights: str, path: str, density: str, memory_bytes: int) -> Task:
    """Holds a density map against that of the picture in one piece.

    Where memory is too small for the whole picture, its upper part is taken.

    Args:
        weights: of the network.
        path: of the picture.
        density: file of the map, [H, W].
        memory_bytes: that may be used.
    """
    found: dict[str, float] = {}

    def run() -> None:
        parallel = Parallel("jit", jax.local_devices()[:1])
        trained = trained_model.restore(weights, parallel)
        image = pictures.read(path, trained.config.input.channels)
        expected = np.load(density)
        rows, memory = image.shape[0], 0
        while True:
            batch = _whole_batch(image[:rows], trained)
            program = jax.jit(_density_of, static_argnums=0).lower(
                trained.model, trained.params, batch.image, batch.size
            ).compile()
            analysis = program.memory_analysis()
            memory = analysis.temp_size_in_bytes + analysis.output_size_in_bytes
            memory += batch.image.nbytes
            if memory <= memory_bytes or rows <= 4 * HALO:
                break
            rows = rows // 2
        computed = np.asarray(program(trained.params, batch.image, batch.size))
        # Rows beside the cut see another picture; all do not where there is no cut.
        valid = rows if rows == image.shape[0] else rows - HALO
        a, b = computed[0, :valid, : image.shape[1], 0], expected[:valid]
        found["difference"] = float(np.abs(a - b).max() / np.abs(a).max())
        found["count_difference"] = float(
            abs(a.sum(dtype=np.float64) - b.sum(dtype=np.float64)) / a.sum(dtype=np.float64)
        )
        found["rows"], found["of_rows"], found["bytes"] = valid, image.shape[0], memory

    return Task(run, result=lambda: found)


def _whole_batch(image: np.ndarray, trained: TrainedModel) -> Batch:
    crop = Crop(image, np.float32(0), np.zeros((0, 2), np.float32))
    shape = tuple(-(-side // STRIDE) * STRIDE for side in image.shape[:2])
    i = trained.config.input
    return collate([crop], [0], shape, 1, mean=i.mean, std=i.std)


def _density_of(model, params, image, size) -> jax.Array:
    return model.apply({"params": params}, image, size).density


def evaluate(weights: str, dataset: dict[str, Any], number: int) -> Task:
    """Pictures of a data set from disk to metrics, as `--mode=eval` without its report."""
    found: dict[str, Any] = {}

    def run() -> None:
        parallel = Parallel()
        trained = trained_model.restore(weights, parallel)
        config = _config(dataset)
        config.input.update(trained.config.input)
        data, split = _pictures(config, number)
        whole_pictures = data_lib.whole_pictures(config, data, split)
        evaluator = evaluate_lib.Evaluator(
            trained.model, config, whole_pictures, trained.groups, parallel
        )
        images = evaluator(trained.params)
        result = evaluate_lib.aggregate(images).result()
        found.update({name: result[name] for name in ("mae", "rmse", "game_3", "num_images")})
        found["programs"] = evaluator.traces

    return Task(run, result=lambda: found)


def load_batches(
    dataset: dict[str, Any], number: int, batch: int, height: int, width: int
) -> Task:
    """A batch of the training's input: random crops, augmented as recommended, collated."""
    config = _config(dataset)
    config.crop.update(mode="fixed", height=height, width=width)
    config.train.update(batch_size=batch, steps=10**6)
    data, split = _pictures(config, number)
    train = data.pictures(split)
    groups = CountGroups(
        edges=tuple(float(10 * i) for i in range(1, GROUPS)),
        class_weights=(1.0,) * GROUPS,
        histogram=(1,) * GROUPS,
    )
    stream = data_lib.training_stream(config, train, groups, start=0, shard=Shard())
    last: Any = None

    def run() -> None:
        nonlocal last
        last = next(stream)

    return Task(run, result=lambda: {"shape": list(last.image.shape)})


def convolution(
    precision: str,
    batch: int,
    height: int,
    width: int,
    kernel: int,
    channels: tuple[int, int],
    part: str,
) -> Task:
    """A convolution of the cascade as a training step computes it, or its gradients.

    Args:
        precision: of its products.
        batch: number of pictures.
        height: of a picture, pixels.
        width: likewise.
        kernel: its side.
        channels: of its input and its output.
        part: 'forward' or 'gradients': of its input and its kernel.
    """
    made = inputs.convolution(batch, height, width, kernel, channels)
    size, bias = jnp.array([(height, width)] * batch), jnp.zeros(channels[1])

    def compute(x, weights, gradient):
        y, gradients = jax.vjp(lambda *a: layers.masked_conv(*a, bias, size), x, weights)
        return y if part == "forward" else gradients(gradient)

    arrays = tuple(map(jnp.asarray, made))
    with _parallel(precision).training():
        program = jax.jit(compute).lower(*arrays).compile()
    output: Any = None

    def run() -> None:
        nonlocal output
        output = program(*arrays)

    return Task(
        run,
        lambda: jax.block_until_ready(output),
        lambda: {"sum": sum(float(np.asarray(a, np.float64).sum()) for a in jax.tree.leaves(output))},
    )


def matmul(precision: str, side: int) -> Task:
    """A product of two square matrices: what the machine can do."""
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    precision = "float32" if precision == "bfloat16" else precision
    with jax.default_matmul_precision(precision):
        product = jax.jit(jnp.matmul).lower(*[jnp.ones((side, side), dtype)] * 2).compile()
    x = jnp.ones((side, side), dtype)
    last: Any = None

    def run() -> None:
        nonlocal last
        last = product(x, x)

    return Task(run, lambda: jax.block_until_ready(last))


TASKS = {
    task.__name__: task
    for task in (
        about, write_weights, prepare_pictures, train_step, forward, predict, whole, evaluate,
        load_batches, convolution, matmul,
    )
}  # fmt: skip
