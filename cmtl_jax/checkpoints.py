"""Checkpoints (Orbax): the latest and the best, saved while training goes on, restored anywhere.

A checkpoint has three items: `params`, the weights that evaluation uses; `train`, what only
training needs beside them; `about`, JSON: config, count groups, data set. Any number of devices and
processes restores what any other saved.
"""

import contextlib
import dataclasses
import json
import logging
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import preservation_policy

from cmtl_jax.errors import UserError

PyTree = Any

FOLDER = "checkpoints"
METRIC = "mae"


class DamagedError(UserError):
    """A checkpoint's files are missing, cut short or changed."""

    def __init__(self, step: int, message: str):
        super().__init__(message)
        self.step = step


@dataclasses.dataclass(frozen=True)
class Restored:
    """A restored checkpoint; train is None where only the weights were wanted."""

    step: int
    params: PyTree
    train: PyTree | None
    about: dict[str, Any]


class Checkpoints:
    """The checkpoints of a work folder."""

    def __init__(
        self, workdir: str | pathlib.Path, *, keep_latest: int = 2, read_only: bool = False
    ):
        """Opens `workdir`/checkpoints; a reader never changes it.

        Raises:
            UserError: there is none to read, or the folder cannot be written.
        """
        self.folder = pathlib.Path(workdir).absolute() / FOLDER
        if read_only and not self.folder.is_dir():
            raise UserError(f"no checkpoints in {workdir}; train there first or name another")
        policy = preservation_policy.AnyPreservationPolicy(
            [
                preservation_policy.LatestN(keep_latest),
                preservation_policy.BestN(
                    get_metric_fn=lambda metrics: -metrics[METRIC],
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        self._check_metrics(read_only)
        try:
            if not read_only:
                self.folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=policy,
                    best_fn=lambda metrics: metrics[METRIC],
                    best_mode="min",
                    read_only=read_only,
                    create=not read_only,
                    save_interval_steps=0 if read_only else 1,
                    cleanup_tmp_directories=not read_only,
                ),
                item_handlers={
                    "params": ocp.StandardCheckpointHandler(),
                    "train": ocp.StandardCheckpointHandler(),
                    "about": ocp.JsonCheckpointHandler(),
                },
            )
        except OSError as error:
            raise UserError(f"cannot write checkpoints in {self.folder}: {error}") from error

    def _check_metrics(self, read_only: bool) -> None:
        """Orbax opens no folder with a validation it cannot read; such a one is forgotten."""
        for path in self.folder.glob("*/metrics/metrics"):
            try:
                json.loads(path.read_text())
            except ValueError as error:
                step = path.parent.parent.name
                if read_only:
                    raise DamagedError(
                        int(step), f"checkpoint {step} in {self.folder} is damaged: its validation"
                    ) from error
                logging.warning("checkpoint %s lost its validation: %s is damaged", step, path)
                shutil.rmtree(path.parent, ignore_errors=True)

    def save(
        self, step: int, params: PyTree, train: PyTree, about: dict, mae: float | None
    ) -> None:
        """Saves in the background; mae is the validation's, None where there was none.

        A checkpoint that exists is left as it is: the same step holds the same.

        Raises:
            UserError: this or the previous checkpoint could not be written.
        """
        if step in self._manager.all_steps():
            return
        with self._writing():
            self._manager.save(
                step,
                metrics=None if mae is None else {METRIC: float(mae)},
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(params),
                    train=ocp.args.StandardSave(train),
                    about=ocp.args.JsonSave(about),
                ),
                force=True,
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a full disk comes as an error of many kinds
            raise UserError(
                f"a checkpoint could not be written in {self.folder}: {_first_line(error)}; "
                "make room there and run the same command again"
            ) from error

    def reached_preemption(self, step: int) -> bool:
        """Whether the machine asked to stop; the same answer in every process."""
        return self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Until everything is written.

        Raises:
            UserError: the last checkpoint could not be written, such as on a full disk.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Ends, after everything is written.

        Raises:
            UserError: the last checkpoint could not be written.
        """
        with self._writing():
            self._manager.close()

    def steps(self) -> list[int]:
        """Steps with a checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def best(self) -> tuple[int, float] | None:
        """Step and MAE of the lowest validation MAE; None where none was validated."""
        validated = {step: self._mae(step) for step in self.steps()}
        validated = {step: mae for step, mae in validated.items() if mae is not None}
        return min(validated.items(), key=lambda item: item[1], default=None)

    def _mae(self, step: int) -> float | None:
        metrics = self._manager.metrics(step)
        return None if not metrics else metrics.get(METRIC)

    def find(self, which: str | int) -> int:
        """The step of 'best' (the latest where none was validated), 'latest', or a number.

        Raises:
            UserError: there is no such checkpoint.
        """
        steps = self.steps()
        if not steps:
            raise UserError(f"no checkpoint in {self.folder}; train there first")
        if which == "best":
            best = self.best()
            return steps[-1] if best is None else best[0]
        if which == "latest":
            return steps[-1]
        if not str(which).isdigit() or int(which) not in steps:
            raise UserError(
                f"no checkpoint {which} in {self.folder}; there are best, latest, "
                + ", ".join(map(str, steps))
            )
        return int(which)

    def about(self, step: int) -> dict[str, Any]:
        """What was saved beside the arrays of a step.

        Raises:
            UserError: the checkpoint is damaged.
        """
        with self._reading(step):
            restored = self._manager.restore(
                step, args=ocp.args.Composite(about=ocp.args.JsonRestore())
            )
            return restored["about"]

    def restore(self, step: int, params: PyTree, train: PyTree | None = None) -> Restored:
        """Restores a step.

        Args:
            step: of an existing checkpoint.
            params: tree of jax.ShapeDtypeStruct with shardings, what is expected.
            train: likewise; None restores the weights alone.

        Raises:
            UserError: the checkpoint is of another model or optimizer, or is damaged.
        """
        items = {"params": params} | ({} if train is None else {"train": train})
        with self._reading(step):
            metadata = self._manager.item_metadata(step)
            saved = {name: _shapes(metadata[name].tree) for name in items}
        for name, expected in items.items():
            self._check_same(step, name, saved[name], _shapes(expected))
        with self._reading(step):
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    about=ocp.args.JsonRestore(),
                    **{name: ocp.args.StandardRestore(tree) for name, tree in items.items()},
                ),
            )
            return Restored(step, restored["params"], restored.get("train"), restored["about"])

    def restore_latest(self, params: PyTree, train: PyTree) -> Restored | None:
        """The newest checkpoint that can be read; None where there is none at all.

        One that a crash left damaged is passed over, and put aside as `damaged_checkpoint_<step>`
        in the work folder once an older one was read: Orbax saves no step before it.

        Raises:
            UserError: all are damaged, or one is of another model or optimizer.
        """
        damaged: list[DamagedError] = []
        for step in reversed(self.steps()):
            try:
                restored = self.restore(step, params, train)
            except DamagedError as error:
                damaged.append(error)
                continue
            for error in damaged:
                logging.warning("%s; going on from step %d", error, step)
            if damaged:
                self._put_aside([error.step for error in damaged])
            return restored
        if damaged:
            raise damaged[0]
        return None

    def _put_aside(self, steps: list[int]) -> None:
        _barrier("tried")  # every process has read what it could
        try:
            for step in steps if jax.process_index() == 0 else ():
                aside = self.folder.parent / f"damaged_checkpoint_{step}"
                shutil.rmtree(aside, ignore_errors=True)
                (self.folder / str(step)).rename(aside)
        except OSError as error:
            raise UserError(
                f"the damaged checkpoint {step} in {self.folder} cannot be put aside: {error}"
            ) from error
        _barrier("removed")
        self._manager.reload()

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax raises many kinds for damaged files
            raise DamagedError(
                step,
                f"checkpoint {step} in {self.folder} cannot be read, it is damaged: "
                f"{_first_line(error)}",
            ) from error

    def _check_same(
        self, step: int, item: str, saved: dict[str, tuple], expected: dict[str, tuple]
    ) -> None:
        differing = sorted(
            name for name in saved.keys() | expected.keys()
            if saved.get(name) != expected.get(name)
        )  # fmt: skip
        if not differing:
            return
        first = differing[0]
        kind = "model" if item == "params" else "optimizer (or of another config.optimizer.ema)"
        raise UserError(
            f"checkpoint {step} in {self.folder} is of another {kind}: {len(differing)} of its "
            f"tensors differ, such as {first} (there {saved.get(first, 'missing')}, here "
            f"{expected.get(first, 'missing')}); use the config it was trained with, or another "
            "work folder"
        )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(x.shape)
            for path, x in leaves}  # fmt: skip


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"checkpoints: {name}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
