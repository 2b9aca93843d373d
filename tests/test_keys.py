"""Each key of the presets changes what it says, and nothing else.

Runs that differ in one key are set up as training sets them up, and looked at stage by stage, from
the head points to the optimiser's update. Nothing is trained; networks are compared by their
programs, as traced.
"""

import functools
import hashlib
import itertools
import json
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Var
from PIL import Image
from test_presets import rows

from cmtl_jax import config as base_config
from cmtl_jax import trained_model
from cmtl_jax.evaluation import evaluate, ground_truth
from cmtl_jax.input_pipeline import data as data_lib
from cmtl_jax.input_pipeline.batch import Batch
from cmtl_jax.input_pipeline.loader import Shard
from cmtl_jax.models.output import CmtlOutput
from cmtl_jax.parallel import Parallel
from cmtl_jax.prediction.counter import Counter
from cmtl_jax.training import loop, train
from cmtl_jax.training import steps as steps_lib
from cmtl_jax.training.writers import NoWriter

WHOLE = {"test pictures", "validation pictures", "validation images"}
CROPS = {"crop images", "crop densities"}  # of crops of the same sizes at other places
GROUPS = {"crop counts", "crop groups", "group edges", "class weights"}
NETWORK = {"parameters", "initial parameters", "density", "group logits", "outputs in training"}
DENSITY = {"density", "outputs in training"}
LOGITS = {"group logits", "outputs in training"}
OTHER_LAYERS = {"parameters", "initial parameters"}

LOSSES = {"density loss", "block loss", "total loss"}

STAGES = WHOLE | CROPS | GROUPS | NETWORK | {
    "head points", "density maps", "pictures", "held-out pictures", "crop sizes", "density loss",
    "group loss", "block loss", "total loss", "update", "averaging", "length", "ground truth",
    "second look",
}  # fmt: skip


class Key(NamedTuple):
    """A key, values of it, and what any two of them tell apart.

    Attributes:
        name: of the key.
        values: at least those of all presets.
        changes: stages that differ.
        may: stages that depend on the changed ones by way of the data, and may differ.
        given: other keys without which it does nothing.
    """

    name: str
    values: tuple
    changes: set[str]
    may: set[str] = set()
    given: dict[str, Any] = {}


KEYS = (
    # What the network reads.
    Key("input.channels", (1, 3), {"pictures", "test pictures", "validation images", "crop images"}
        | NETWORK),
    Key("input.mean", (113.0, 0.0, 97.0), {"validation images", "crop images"}),
    Key("input.std", (64.0, 1.0, 69.6), {"validation images", "crop images"}),
    Key("input.scale", (1.0, 0.5), {"head points", "density maps", "pictures"} | WHOLE | CROPS,
        GROUPS),
    Key("input.contrast", (0.0, 66.0), {"pictures", "test pictures", "validation images",
        "crop images"}),
    Key("input.detail", (0.0, 36.0), {"pictures", "test pictures", "validation images",
        "crop images"}),
    Key("input.close", (0.0, 7.0), {"second look"}),
    Key("input.close_scale", (1.0, 0.7), {"second look"}, given={"input.close": 7.0}),
    Key("input.looks", ((), (0.7,)), {"second look"}),
    Key("input.resize", ("none", "multiple_of_4"), WHOLE),
    # The network. The group head does not reach the density, unless prior_fusion says so.
    Key("model.name", ("cmtl", "single_stage", "mcnn"), NETWORK - LOGITS, LOGITS),
    Key("model.prior_pool", ("adaptive_max", "spp"), LOGITS | OTHER_LAYERS),
    Key("model.spp_levels", ((4, 2, 1), (3, 1)), LOGITS | OTHER_LAYERS,
        given={"model.prior_pool": "spp"}),
    Key("model.logit_activation", ("none", "prelu"), LOGITS | OTHER_LAYERS),
    Key("model.dropout", (0.5, 0.0), {"outputs in training"}),
    Key("model.up_maps", ((16, 8), (16, 18)), DENSITY | OTHER_LAYERS),
    Key("model.output_activation", ("relu", "softplus"), DENSITY),
    Key("model.init", ("whitened", "he", "released"), {"initial parameters"}),
    Key("model.prior_fusion", ("features", "film"), DENSITY | OTHER_LAYERS),
    # The loss. The scale is the network's, too.
    Key("loss.group_loss", ("softmax_ce", "softmax_bce", "sigmoid_bce"),
        {"group loss", "total loss"}),
    Key("loss.group_weight", (0.02, 1e-4), {"total loss"}),
    Key("loss.density_reduction", ("mean", "sum"), LOSSES),
    Key("loss.density_scale", (100.0, 1.0), LOSSES | DENSITY),
    Key("loss.block_weight", (1280.0, 8.0, 0.0), {"total loss"}, {"block loss"}),  # 0: without
    Key("loss.block_side", (4, 2), {"block loss", "total loss"}),
    Key("loss.block_linear", (0.32, 0.0), {"block loss", "total loss"}),
    # Crowd-count groups.
    Key("groups.count", ("points", "density"), {"group edges"}, {"crop groups", "class weights"},
        {"groups.binning": "uniform"}),
    Key("groups.binning", ("quantile", "uniform", "released", "c3"), {"group edges"},
        {"crop groups", "class weights"}, {"crop.height": 64, "crop.width": 64}),  # none is empty
    Key("groups.class_weights", ("none", "inv_sqrt", "released"), {"class weights"}),
    # The optimiser.
    Key("optimizer.name", ("muon", "adam"), {"update"}),
    Key("optimizer.learning_rate", (1e-3, 1e-5), {"update"}),
    Key("optimizer.schedule", ("constant", "cosine"), {"update"}),
    Key("optimizer.warmup_steps", (0, 100), {"update"}),
    Key("optimizer.b1", (0.9, 0.5), {"update"}),
    Key("optimizer.b2", (0.999, 0.9), {"update"}),
    Key("optimizer.eps", (1e-8, 1e-3), {"update"}),
    Key("optimizer.weight_decay", (0.0, 1e-4), {"update"}),
    Key("optimizer.head_factor", (1.0, 0.01), {"update"}),
    Key("optimizer.grad_clip", (0.0, 1.0), {"update"}),
    Key("optimizer.ema", (0.0, 0.998), {"averaging"}),
    Key("optimizer.ema_warmup", (True, False), {"averaging"}),
    Key("train.batch_size", (8, 1), {"length", "crop sizes"} | CROPS,
        {"crop counts", "crop groups"}),
    Key("train.steps", (20_000, 500_000, 300_000), {"length"}),
    # Crops and what happens to them.
    Key("crop.mode", ("fixed", "quarter", "released"), {"crop sizes"} | CROPS, GROUPS),
    Key("crop.height", (24, 96, 1024), {"crop sizes"} | CROPS, GROUPS),
    Key("crop.width", (24, 96, 1024), {"crop sizes"} | CROPS, GROUPS),
    Key("crop.range", ("centres", "all", "released"), CROPS, GROUPS),
    Key("crop.stored", (0, 9, 300), CROPS, GROUPS),
    Key("crop.jpeg", (0, 75), {"crop images"}),
    Key("augment.when", ("online", "stored"), CROPS, GROUPS, {"crop.stored": 9}),
    Key("augment.flip", (0.5, 0.0), CROPS),
    Key("augment.noise", (0.5, 0.0), {"crop images"}),
    Key("augment.noise_level", (10.0, 5.0), {"crop images"}),
    Key("augment.contrast", (0.2, 0.0), {"crop images"}),
    Key("augment.sharpness", (0.0, 0.3), {"crop images"}),
    Key("augment.grey", (0.0, 0.5), {"crop images"}, given={"input.channels": 3}),
    Key("augment.brightness", (20.0, 0.0), {"crop images"}),
    Key("augment.zoom", (0.25, 0.35, 0.0), CROPS, GROUPS),
    Key("augment.clip", (True, False), {"crop images"}),
    # Density maps: groups are of the points unless groups.count says otherwise.
    Key("density.kernel", (15, 7), {"density maps", "crop densities"}),
    Key("density.sigma", (4.0, 2.0), {"density maps", "crop densities"}),
    Key("density.border", ("clip_renorm", "recenter"), {"density maps", "crop densities"}),
    Key("density.outside", ("clamp", "drop", "reference"), {"head points", "density maps"},
        GROUPS | {"crop densities", "ground truth"}),
    # Validation. Pictures that are held out are not trained on.
    Key("dataset.val_fraction", (0.1, 0.4),
        {"held-out pictures", "validation pictures", "validation images"} | CROPS, GROUPS),
    Key("dataset.val_split", ("stratified", "released"),
        {"held-out pictures", "validation pictures", "validation images"} | CROPS, GROUPS),
    Key("dataset.validate_on", ("whole", "patches"), {"validation pictures", "validation images"},
        given={"crop.stored": 3}),
    # Evaluation.
    Key("eval.ground_truth", ("points", "density", "reference_py2", "reference_py3"),
        {"ground truth"}),
)  # fmt: skip

# Values with which each stage depends on few others: edges are exact, rates do not change.
USUAL = {
    "dataset.name": "point_folder",
    "dataset.val_fraction": 0.4,
    "dataset.val_split": "released",  # regardless of the counts
    "crop.height": 24,
    "crop.width": 24,
    "groups.number": 4,
    "groups.samples": 4,
    "groups.binning": "released",
    "groups.class_weights": "released",
    "model.init": "he",
    "augment.contrast": 0.0,
    "augment.brightness": 0.0,
    "augment.sharpness": 0.0,
    "augment.zoom": 0.0,
    "optimizer.name": "adam",
    "optimizer.schedule": "constant",
    "optimizer.warmup_steps": 0,
    "optimizer.grad_clip": 0.0,
    "optimizer.head_factor": 1.0,
    "optimizer.ema": 0.0,
    "eval.max_buckets": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Colour pictures of many sizes with head points, some outside, and a place to prepare them."""
    folder = tmp_path_factory.mktemp("keys")
    rng = np.random.default_rng(0)
    for split, number in (("train", 10), ("test", 2)):
        (folder / "raw" / split).mkdir(parents=True)
        for i in range(number):
            height, width = rng.integers(66, 160, 2)
            pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "raw" / split / f"{i}.png")
            points = rng.uniform(-9, 1.05 * max(height, width), (6 * i + 12, 2))
            lines = ["x,y", *(f"{x:.2f},{y:.2f}" for x, y in points)]
            (folder / "raw" / split / f"{i}.csv").write_text("\n".join(lines))
    return folder


class Uncompiled(Parallel):
    """Keeps what is to be compiled, and runs nothing of it."""

    def initialise(self, function):
        return function()

    def once(self, function, params, *sample):
        """The fit to pictures: shows that it was asked for."""
        return jax.tree.map(lambda x: x + 1, params)

    def eval_step(self, function):
        return None


class Nothing:
    """A work folder without checkpoints."""

    def restore_latest(self, params, train):
        return None

    def wait(self):
        pass


class Run(NamedTuple):
    """A run just before its first step: what the loop and the makers of its parts are given."""

    hooks: train._Run
    state: Any
    batches: list[Batch]
    steps: int
    optimizer: Any
    averaging: tuple
    validation: Any


def set_up(config, workdir) -> Run:
    """The run that train.train would start."""
    given = {}

    def turns(state, batches, hooks, progress, *, steps, **_):
        given.update(state=state, batches=[next(batches) for _ in range(4)], steps=steps)
        return state, True
        yield

    def make_train_step(model, tx, *, ema_decay, ema_warmup, seed):
        given.update(optimizer=tx, averaging=(ema_decay, ema_warmup))

    def evaluator(model, config, pictures, groups, parallel, passes):
        given["validation"] = pictures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained_model, "init_params", lambda *about: zeros(*about))
        patch.setattr(loop, "turns", turns)
        patch.setattr(steps_lib, "make_train_step", make_train_step)
        patch.setattr(evaluate, "Evaluator", evaluator)
        patch.setattr(train, "MetricsWriter", lambda *_: NoWriter())
        parallel = Uncompiled(devices=jax.devices()[:1])
        hooks = train._Run(config, workdir, parallel, data_lib.load(config), Nothing())
        assert train._train([hooks], parallel) == 0
    return Run(hooks, **given)


_init_params = trained_model.init_params


@functools.cache
def zeros(model, seed, channels):
    shapes = jax.eval_shape(lambda: _init_params(model, seed, channels))
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


@functools.cache
def programs(model, seed, channels) -> dict[str, str]:
    """What the network computes, and what draws its first parameters: traced, not run."""
    params = {"params": zeros(model, seed, channels)}
    image = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
    size = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    keys = jax.random.split(jax.random.key(0), 1)
    evaluated = jax.make_jaxpr(model.apply)(params, image, size).jaxpr
    trained = jax.make_jaxpr(model.apply)(params, image, size, keys).jaxpr
    drawn = jax.make_jaxpr(lambda: model.lazy_init(jax.random.key(seed), image, size))().jaxpr
    density, *logits = evaluated.outvars
    return {
        "density": text(evaluated, [density]),
        "group logits": text(evaluated, logits),
        "outputs in training": text(trained, trained.outvars),
        "drawn": text(drawn, drawn.outvars),
    }


def text(program, results) -> str:
    """The operations of a traced function that some of its results need."""
    numbers = {}

    def named(x):
        return f"{numbers.setdefault(x, len(numbers)) if isinstance(x, Var) else x.val}:{x.aval}"

    lines = [str([*map(named, results)])]
    needed = {x for x in results if isinstance(x, Var)}
    for equation in reversed(program.eqns):
        if needed & set(equation.outvars):
            needed |= {x for x in equation.invars if isinstance(x, Var)}
            lines.append(
                f"{[*map(named, equation.outvars)]} = {equation.primitive} {equation.params} "
                f"{[*map(named, equation.invars)]}"
            )
    return re.sub(r"0x[0-9a-f]+", "", "\n".join(lines))  # where functions lie in memory


def losses(objective) -> dict[str, Any]:
    """Of a fixed output, with fixed class weights: those of the groups are a stage of their own."""
    rng = np.random.default_rng(0)
    density = rng.uniform(0, 0.1, (2, 2, 8, 8, 1)).astype(np.float32)
    output = CmtlOutput(density[0], rng.normal(size=(2, 4)).astype(np.float32))
    size, group = np.array([[8, 8], [8, 5]], np.int32), np.array([0, 2], np.int32)
    batch = Batch(density[1], density[1], size, np.ones(2), group, np.ones(2, np.float32))
    objective = objective.replace(class_weights=np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    parts = objective(output, batch)
    total = objective.total({name: part.sum / part.count for name, part in parts.items()})
    return {
        "density loss": parts["density_loss"],
        "group loss": parts["group_loss"],
        "block loss": parts.get("block_loss"),
        "total loss": total,
    }


def fitted(params) -> bool:
    """Whether they are no longer those drawn (here 0)."""
    return any(x.any() for x in jax.tree.leaves(params))


def update(optimizer) -> list:
    """Four updates of two layers by fixed gradients of norm above 1."""
    rng = np.random.default_rng(0)

    def draw(shape):
        return rng.normal(size=shape).astype(np.float32)

    params = {name: {"w": draw((1, 1, 3, 2)), "b": draw(3)} for name in ("shared", "head")}
    state, updates = optimizer.init(params), []
    for _ in range(4):
        gradient = jax.tree.map(lambda x: draw(x.shape), params)
        one, state = optimizer.update(gradient, state, params)
        updates.append(one)
    return updates


def stages(config, workdir) -> dict[str, str]:
    """A fingerprint of each stage of a run."""
    run = set_up(config, workdir)
    hooks, data = run.hooks, run.hooks.data
    everything = {
        entry.id if split == "test" else f"train {entry.id}": pictures[i]
        for split, pictures in data.splits.items()
        for i, entry in enumerate(pictures.index)
    }
    everything = [everything[name] for name in sorted(everything)]  # whatever is held out
    whole = data_lib.whole_pictures(config, data, "test")
    plan = data_lib.evaluation_plan(config, run.validation, batch_size=4)
    validated = data_lib.evaluation_stream(
        config, plan, run.validation, hooks.groups, shard=Shard()
    )
    network = dict(programs(hooks.model, config.seed, config.input.channels))
    found = {
        "head points": [picture.points for picture in everything],
        "density maps": [picture.density for picture in everything],
        "pictures": [picture.image for picture in everything],
        "held-out pictures": [entry.id for entry in data.splits["val"].index],
        "test pictures": [whole[i].image for i in range(len(whole))],
        "ground truth": [
            ground_truth.count(config.eval.ground_truth, whole.original(i))
            for i in range(len(whole))
        ],
        "validation pictures": [entry[:3] for entry in run.validation.index],
        "validation images": [batch.image for _, batch in validated],
        "crop sizes": [batch.size for batch in run.batches],
        "crop images": [batch.image for batch in run.batches],
        "crop densities": [batch.density for batch in run.batches],
        "crop counts": [batch.count for batch in run.batches],
        "crop groups": [batch.group for batch in run.batches],
        "group edges": hooks.groups.edges,
        "class weights": hooks.objective.class_weights,
        "parameters": jax.tree.map(lambda x: str(x.shape), run.state.params),
        "initial parameters": (network.pop("drawn"), fitted(run.state.params)),
        **network,
        **losses(hooks.objective),
        "update": update(run.optimizer),
        "averaging": (*run.averaging, run.state.ema is None),
        "length": (run.steps, [len(batch.weight) for batch in run.batches]),
        "second look": second_look(config, data.pictures("test").pixels(0)),
    }  # fmt: skip
    assert found.keys() == STAGES
    return {name: fingerprint(value) for name, value in found.items()}


def second_look(config, pixels) -> list:
    """What further looks see of a picture whose people seem to stand 5 pixels apart."""
    counter, looked = Counter.__new__(Counter), []
    counter._input, counter._close = config.input, None

    def alone(image):
        looked.append(image)
        return np.zeros(image.shape[:2], np.float32)

    counter._alone = alone
    density = np.full((80, 80), 1 / 25, np.float32)
    counter.second_look(density, pixels.shape[:2], lambda channels: pixels)
    return looked


def fingerprint(tree) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def look(folder, tmp_path_factory):
    """Stages of the run with these keys; equal runs are looked at once."""
    seen = {}

    def look(changes: dict[str, Any]) -> dict[str, str]:
        values = USUAL | changes
        name = json.dumps(values, sort_keys=True)
        if name not in seen:
            config = base_config.base()
            config.update_from_flattened_dict(values)
            config.dataset.raw_dir = str(folder / "raw")
            config.dataset.tfds_dir = str(folder / "tfds")
            base_config.validate(config)
            seen[name] = stages(config, tmp_path_factory.mktemp("run"))
        return seen[name]

    return look


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_a_key_changes_what_it_says_and_nothing_else(look, key):
    found = [(value, look(key.given | {key.name: value})) for value in key.values]
    for (one, before), (other, after) in itertools.combinations(found, 2):
        changed = {stage for stage in STAGES if before[stage] != after[stage]}
        said = f"{key.name}: {one!r} -> {other!r}"
        assert key.changes <= changed, f"{said} does not change {key.changes - changed}"
        assert changed <= key.changes | key.may, f"{said} changes {changed - key.changes - key.may}"


def test_every_key_of_the_page_is_here_with_the_values_of_all_presets():
    values = {key.name: key.values for key in KEYS}
    assert len(values) == len(KEYS)
    for name, of_presets in rows().items():
        assert name in values, f"{name} is in docs/presets.md and not in KEYS"
        assert set(of_presets) <= {str(value) for value in values[name]}, name
    for name, choices in base_config._CHOICES.items():
        assert name not in values or set(choices) == set(values[name]), name


def test_every_stage_is_changed_by_a_key():
    assert set().union(*(key.changes | key.may for key in KEYS)) == STAGES
    for stage in STAGES - {"crop counts", "crop groups"}:
        assert any(stage in key.changes for key in KEYS), stage


def test_the_same_run_twice_is_the_same(folder, look, tmp_path):
    config = base_config.base()
    config.update_from_flattened_dict(USUAL)
    config.dataset.raw_dir, config.dataset.tfds_dir = str(folder / "raw"), str(folder / "tfds")
    assert stages(config, tmp_path) == look({})
