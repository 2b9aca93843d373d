"""Training: puts data, model, optimizer, loop and checkpoints together."""

import contextlib
import functools
import json
import logging
import math
import pathlib
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from cmtl_jax import checkpoints as checkpoints_lib
from cmtl_jax import head_spacing, trained_model, version, work_folder
from cmtl_jax.errors import UserError
from cmtl_jax.evaluation import evaluate, report, run
from cmtl_jax.input_pipeline import data as data_lib
from cmtl_jax.input_pipeline import extra_pictures
from cmtl_jax.input_pipeline.count_groups import CountGroups
from cmtl_jax.input_pipeline.loader import Shard
from cmtl_jax.input_pipeline.pictures import Pictures
from cmtl_jax.models import colours, whitening
from cmtl_jax.parallel import Parallel
from cmtl_jax.training import continuation, loop, optimizer
from cmtl_jax.training import state as state_lib
from cmtl_jax.training import steps as steps_lib
from cmtl_jax.training.guard import DeadOutputGuard
from cmtl_jax.training.progress import Progress, duration
from cmtl_jax.training.state import TrainState
from cmtl_jax.training.stopping import StopRequest
from cmtl_jax.training.writers import MetricsWriter, NoWriter

_BEFORE = "before.json"  # in the work folder: the errors of the weights that training started from
_WHITENING_CROPS = 32  # that the first parameters are fitted to


def train(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> int:
    """Trains, from the newest checkpoint in workdir if there is one, and evaluates the best.

    Writes config.json, checkpoints/, metrics.jsonl, TensorBoard events and what evaluation writes.
    Weights that training starts from are evaluated, too; their errors stand beside the result's.

    Returns:
        Exit status: 0, or 128 + the signal that stopped the run (saved; the same command goes on).

    Raises:
        UserError: bad input, or a dead density output.
    """
    return train_together([(config, workdir)])


def train_together(jobs: Sequence[tuple[ml_collections.ConfigDict, pathlib.Path]]) -> int:
    """Does what `train` does for several runs side by side: one program does a step of each.

    Args:
        jobs: config and work folder of each; the configs differ in their pictures alone, and all
            crops are of one shape.

    Returns:
        Exit status, of all.

    Raises:
        UserError: bad input, or a dead density output of one; all end, and can be gone on with.
    """
    config = jobs[0][0]
    parallel = Parallel(config.parallel, precision=config.matmul_precision)
    with contextlib.ExitStack() as stack:
        runs = []
        for config, workdir in jobs:
            work_folder.make(workdir)
            data = data_lib.load(config)
            checkpoints = checkpoints_lib.Checkpoints(
                workdir, keep_latest=config.train.keep_latest
            )
            stack.callback(checkpoints.close)
            before = _before(config, workdir, parallel, data) if config.init_from else None
            name = data.name if len(jobs) > 1 else ""
            runs.append(_Run(config, workdir, parallel, data, checkpoints, before, name))
        status = _train(runs, parallel)
    if status == 0:
        for run in runs:
            run.evaluate_best()
    return status


def _train(runs: Sequence["_Run"], parallel: Parallel) -> int:
    runs = [run for run in runs if run.prepare()]
    if not runs:
        return 0
    config = runs[0].config
    logging.info(
        "training%s from step %s to %d on %d device(s) by %s, %s",
        f" {len(runs)} runs side by side" if len(runs) > 1 else "",
        ", ".join(str(start) for start in sorted({run.start for run in runs})),
        config.train.steps, parallel.num_devices, config.parallel,
        parallel.devices[0].device_kind,
    )  # fmt: skip
    step = steps_lib.side_by_side(
        steps_lib.make_train_step(
            runs[0].model,
            runs[0].tx,
            ema_decay=config.optimizer.ema,
            ema_warmup=config.optimizer.ema_warmup,
            seed=config.seed,
        )
    )
    constants = []
    if config.dataset.on_device:
        step = steps_lib.cut_inside(step)
        constants.append(data_lib.cutter(config, runs[0].data.pictures("train")))

    @functools.cache
    def compiled(which: tuple[int, ...]):  # another one when some are at their end before others
        return parallel.train_step(step, tuple(runs[i].objective for i in which), *constants)

    with StopRequest(several_processes=parallel.process_count > 1) as request:
        try:
            ends = loop.run(
                [run.turns(request) for run in runs],
                lambda which, states, batches: compiled(which)(states, batches),
            )
        finally:
            for run in runs:
                run.close()
    if all(done for _, done in ends):
        return 0
    logging.info("stopped and saved; run the same command again to go on")
    return request.exit_status


def _before(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    parallel: Parallel,
    data: data_lib.Data,
) -> dict:
    """The result of the weights that training starts from; a run that goes on has it already."""
    file = workdir / _BEFORE
    if file.exists():
        return json.loads(file.read_text())
    start = config.copy_and_resolve_references()
    start.eval.checkpoint = "best"  # as `_initial_weights`; the key is for this run's own weights
    result = run.evaluate_checkpoint(start, workdir, parallel=parallel, data=data)
    if parallel.process_index == 0:
        report.write_metrics_json(file, result)
    return result


class _Run:
    """One training run: the hooks of the loop and what they need.

    With a name its log lines begin with it.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: pathlib.Path,
        parallel: Parallel,
        data: data_lib.Data,
        checkpoints: checkpoints_lib.Checkpoints,
        before: dict | None = None,
        name: str = "",
    ):
        self.config, self.workdir, self.parallel = config, workdir, parallel
        self.data, self.checkpoints, self.before = data, checkpoints, before
        self.name = f"{name}: " if name else ""
        self.model = trained_model.build_model(config)
        self.tx = optimizer.build(config.optimizer, config.train.steps)
        self.shard = Shard(parallel.process_index, parallel.process_count)
        self.writes = parallel.process_index == 0
        self.guard = DeadOutputGuard(
            patience=config.train.dead_patience, stop=config.train.stop_on_dead
        )

    def prepare(self) -> bool:
        """Sets up everything that steps need; False: there are none to do."""
        c = self.config
        pictures = self.data.pictures("train")
        self.state, self.groups, unlogged = self._initial(pictures)
        self.start = int(self.parallel.host(self.state.step))
        if self.start >= c.train.steps:
            logging.info("%sall %d steps are done", self.name, c.train.steps)
            return False
        self._write_config()
        self.about = describe(c, self.data, self.groups)
        self.writer = MetricsWriter(self.workdir, self.start) if self.writes else NoWriter()
        self.evaluator = None
        if len(self.data.splits["val"]):
            self.evaluator = evaluate.Evaluator(
                self.model,
                c,
                data_lib.validation_pictures(c, self.data),
                self.groups,
                self.parallel,
                passes=-(-c.train.steps // c.train.eval_every),
            )
        self.batches = data_lib.training_stream(
            c,
            pictures,
            self.groups,
            rows=self.parallel.round_up(c.train.batch_size),
            start=self.start,
            shard=self.shard,
        )
        self.objective = steps_lib.Objective(
            class_weights=np.asarray(self.groups.class_weights, np.float32),
            group_weight=c.loss.group_weight,
            group_loss=c.loss.group_loss,
            density_reduction=c.loss.density_reduction,
            density_scale=c.loss.density_scale,
            block_weight=c.loss.block_weight,
            block_side=c.loss.block_side,
            block_linear=c.loss.block_linear,
        )
        self.progress = Progress(
            start=self.start,
            steps=c.train.steps,
            batch_size=c.train.batch_size,
            unlogged=unlogged,
            name=self.name,
        )
        return True

    def turns(self, request: StopRequest) -> loop.Turns:
        """The run's part in the loop, once it is prepared."""
        c = self.config
        self.request = request
        state, self.state = self.state, None  # a step consumes it
        if c.init_from and self.start == 0:
            # Saved with its validation: the best checkpoint is never worse than the start.
            self.save(0, state, self.evaluate(0, state))
        return loop.turns(
            state,
            self.batches,
            self,
            self.progress,
            start=self.start,
            steps=c.train.steps,
            eval_every=c.train.eval_every,
            log_every=c.train.log_every,
        )

    def close(self) -> None:
        """Ends what `prepare` began; saving is finished."""
        self.writer.close()
        self.checkpoints.wait()

    def evaluate_best(self) -> None:
        """Evaluates the best weights, beside those that training started from."""
        trained = self.config.copy_and_resolve_references()
        trained.init_from = ""  # the weights of workdir, not those it started from
        run.evaluate_checkpoint(
            trained, self.workdir, parallel=self.parallel, data=self.data, before=self.before
        )

    def _initial(self, pictures: Pictures) -> tuple[TrainState, CountGroups, list[dict]]:
        """State, count groups and metrics not logged yet, of the newest checkpoint or fresh."""
        c = self.config
        fresh = lambda: state_lib.create(  # noqa: E731
            trained_model.init_params(self.model, c.seed, c.input.channels),
            self.tx,
            ema=c.optimizer.ema > 0,
        )
        params, train = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.parallel.replicated),
            jax.eval_shape(lambda: fresh().for_saving()),
        )
        restored = self.checkpoints.restore_latest(params, train)
        if restored is not None:
            groups = CountGroups.from_json(restored.about["groups"])
            continuation.check(restored.about, describe(c, self.data, groups), self.workdir)
            logging.info(
                "%sgoing on from step %d in %s", self.name, restored.step, self.workdir
            )
            state = TrainState.from_saved(restored.params, restored.train)
            return state, groups, restored.about.get("unlogged", [])
        state = self.parallel.initialise(fresh)
        weights = None
        if c.init_from:
            weights = self._initial_weights()
        elif c.model.init == "whitened":
            sample = data_lib.sample_crops(c, pictures, _WHITENING_CROPS)
            weights = self.parallel.once(
                functools.partial(whitening.fit, self.model),
                state.params, sample.image, sample.size, sample.density,
            )  # fmt: skip
        if weights is not None:
            state = state.replace(
                params=weights,
                ema=None if state.ema is None else jax.tree.map(lambda x: x.copy(), weights),
            )
        return state, data_lib.fit_groups(c, pictures), []

    def _initial_weights(self):
        trained = trained_model.restore(self.config.init_from, self.parallel)
        expected = jax.eval_shape(
            lambda: trained_model.init_params(self.model, 0, self.config.input.channels)
        )
        same = jax.tree.structure(trained.params) == jax.tree.structure(expected)
        params = colours.of_grey(trained.params, expected) if same else trained.params
        if jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, expected):
            raise UserError(
                f"the weights of {self.config.init_from} are of another model than this config's; "
                "use the config.model and config.input.channels they were trained with"
            )
        self._warn_of_other_settings(trained.config)
        return params

    def _warn_of_other_settings(self, before: ml_collections.ConfigDict) -> None:
        """Weights fit the grey levels and the scale they were trained with."""
        flat = [
            {"input.mean": c.input.mean, "input.std": c.input.std, "input.scale": c.input.scale,
             "input.contrast": c.input.contrast, "input.detail": c.input.detail,
             "input.close": c.input.close,
             "loss.density_scale": c.loss.density_scale}
            for c in (before, self.config)
        ]  # fmt: skip
        wanted = [f"--config.{k}={v:g}" for k, v in flat[0].items() if v != flat[1][k]]
        if wanted:
            logging.warning(
                "the weights of %s were trained with other settings than this run's; to start "
                "from what they can do, add %s", self.config.init_from, " ".join(wanted)
            )  # fmt: skip

    def _write_config(self) -> None:
        if self.writes:
            text = json.dumps(self.config.to_dict(), indent=2, sort_keys=True)
            work_folder.write(self.workdir / "config.json", text.encode())

    # The hooks of the loop.

    def evaluate(self, step: int, state: TrainState) -> float | None:
        if self.evaluator is None:
            return None
        began = time.monotonic()
        params = self.parallel.replicate(state.evaluated)
        result = evaluate.aggregate(self.evaluator(params)).result()
        best = self.checkpoints.best()
        logging.info(
            "%sstep %d validation on %d %s: MAE %.1f, RMSE %.1f, mean %.1f of %.1f "
            "people (%s)%s", self.name, step, result["num_images"],
            "patches" if self.config.dataset.validate_on == "patches" else "whole pictures",
            result["mae"], result["rmse"], result["mean_count_pred"], result["mean_count_true"],
            duration(time.monotonic() - began),
            "" if best is None else f"; best before: {best[1]:.1f} at step {best[0]}",
        )  # fmt: skip
        self.writer.scalars(step, {f"val/{name}": value for name, value in result.items()})
        return result["mae"]

    def save(self, step: int, state: TrainState, mae: float | None) -> None:
        params, train = self.parallel.replicate(state.for_saving())
        unlogged = self.progress.unlogged()
        for metrics in unlogged:  # spoilt parameters are not to be gone on from
            _require_finite(step, metrics["loss"], metrics["grad_norm"])
        about = self.about | {"unlogged": unlogged}
        chosen_by = mae if self.config.train.keep_best else None
        self.checkpoints.save(step, params, train, about, chosen_by)

    def stop_requested(self, step: int) -> bool:
        if self.parallel.process_count > 1:
            return self.checkpoints.reached_preemption(step)
        return self.request.signal is not None

    def log(self, step: int, summary: dict[str, float]) -> None:
        if "group_loss" in summary and summary["density_loss"]:
            weighted = self.config.loss.group_weight * summary["group_loss"]
            summary = summary | {"loss_ratio": weighted / summary["density_loss"]}
        self.writer.scalars(step, {f"train/{name}": value for name, value in summary.items()})
        _require_finite(step, summary["loss"], summary["grad_norm"])
        self.guard.look(
            step,
            summary["density"],
            summary["density_square"],
            summary["first_layer_grad_norm"],
            summary["density_true"],
        )


def _require_finite(step: int, loss: float, grad_norm: float) -> None:
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise UserError(
            f"the loss or its gradient is not finite at step {step}; lower "
            "--config.optimizer.learning_rate, or set --config.optimizer.grad_clip=1, and run "
            "again: it goes on from the last checkpoint"
        )


def describe(config: ml_collections.ConfigDict, data: data_lib.Data, groups: CountGroups) -> dict:
    """What a checkpoint says of itself: everything needed to use it."""
    return {
        "config": config.to_dict(),
        "groups": groups.to_json(),
        "program": version.describe(),
        "data": ", ".join([data.name, *extra_pictures.titles(config.dataset)]),
        "train_ids_sha256": run.ids_sha256(data.pictures("train")),
        "head_spacing": _head_spacing(config.input.scale, data.pictures("train")),
    }


def _head_spacing(scale: float, pictures: Pictures) -> dict[str, float] | None:
    """Of the training pictures as they are in the raw data, pixels."""
    found = head_spacing.training_range(
        (pictures.points(i), (entry.height, entry.width)) for i, entry in enumerate(pictures.index)
    )
    return found and {name: pixels / scale for name, pixels in found.items()}
