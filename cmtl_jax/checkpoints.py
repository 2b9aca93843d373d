"""Checkpoints (Orbax): the latest and the best, saved while training goes on, restored anywhere.

A checkpoint has three items: `params`, the weights that evaluation uses; `train`, what only training
needs beside them; `about`, JSON: config, count groups, data set. Any number of devices and processes
restores what any other saved.
"""

import dataclasses
import logging
import pathlib
import shutil
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from cmtl_jax.errors import UserError

PyTree = Any

FOLDER = "checkpoints"
METRIC = "mae"


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
            raise UserError(f"no checkpoints in {workdir}; train there first or name another folder")
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
        try:
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=policy,
                    best_fn=lambda metrics: metrics[METRIC],
                    best_mode="min",
                    read_only=read_only,
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

    def save(
        self, step: int, params: PyTree, train: PyTree, about: dict, mae: float | None
    ) -> None:
        """Saves in the background; mae is the validation's, None where there was none.

        A checkpoint of that step is replaced only by one that has a validation.
        """
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            metrics=None if mae is None else {METRIC: float(mae)},
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(params),
                train=ocp.args.StandardSave(train),
                about=ocp.args.JsonSave(about),
            ),
        )

    def reached_preemption(self, step: int) -> bool:
        """Whether the machine asked to stop; the same answer in every process."""
        return self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Until everything is written.

        Raises:
            UserError: the last checkpoint could not be written, such as on a full disk.
        """
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise UserError(
                f"a checkpoint could not be written in {self.folder}: {_first_line(error)}; "
                "make room there and run the same command again"
            ) from error

    def close(self) -> None:
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
        """What was saved beside the arrays of a step."""
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
            UserError: the checkpoint is of another model or is damaged.
        """
        try:
            self._check_model(step, params)
            items = {
                "params": ocp.args.StandardRestore(params),
                "about": ocp.args.JsonRestore(),
            }
            if train is not None:
                items["train"] = ocp.args.StandardRestore(train)
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        except UserError:
            raise
        except Exception as error:  # Orbax raises many kinds for damaged files
            raise UserError(
                f"checkpoint {step} in {self.folder} cannot be read: {_first_line(error)}"
            ) from error
        return Restored(
            step, restored["params"], restored["train"] if train is not None else None,
            restored["about"],
        )  # fmt: skip

    def restore_latest(self, params: PyTree, train: PyTree) -> Restored | None:
        """The newest checkpoint that can be read; None where there is none at all.

        One that a crash left damaged is passed over, and removed once an older one was read.

        Raises:
            UserError: all are damaged, or of another model.
        """
        damaged: list[tuple[int, UserError]] = []
        for step in reversed(self.steps()):
            try:
                restored = self.restore(step, params, train)
            except UserError as error:
                damaged.append((step, error))
                continue
            for bad, error in damaged:
                logging.warning("%s; going on from step %d", error, step)
                if jax.process_index() == 0:
                    shutil.rmtree(self.folder / str(bad), ignore_errors=True)
            if damaged:
                self._manager.reload()
            return restored
        if damaged:
            raise damaged[0][1]
        return None

    def _check_model(self, step: int, params: PyTree) -> None:
        metadata = self._manager.item_metadata(step)["params"]
        saved = _shapes(getattr(metadata, "tree", metadata))
        expected = _shapes(params)
        if saved != expected:
            differing = sorted(
                name for name in saved.keys() | expected.keys()
                if saved.get(name) != expected.get(name)
            )  # fmt: skip
            first = differing[0]
            raise UserError(
                f"checkpoint {step} in {self.folder} is of another model: {len(differing)} of its "
                f"tensors differ, such as {first} (there {saved.get(first, 'missing')}, here "
                f"{expected.get(first, 'missing')}); use the config it was trained with"
            )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(x.shape)
            for path, x in leaves}  # fmt: skip


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
