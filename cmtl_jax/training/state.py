"""The training state: all that changes from step to step."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

PyTree = Any


@flax.struct.dataclass
class TrainState:
    """What a step takes and gives back.

    Attributes:
        step: int32 [], steps done.
        params: parameters of the model.
        opt_state: of the optimizer.
        ema: averaged parameters, which are evaluated and shipped; None without averaging.
    """

    step: jax.Array
    params: PyTree
    opt_state: PyTree
    ema: PyTree | None

    @property
    def evaluated(self) -> PyTree:
        """The parameters that evaluation uses."""
        return self.params if self.ema is None else self.ema

    def for_saving(self) -> tuple[PyTree, PyTree]:
        """(what evaluation uses, what only training needs beside it)."""
        train = {"step": self.step, "opt_state": self.opt_state}
        if self.ema is not None:
            train["params"] = self.params
        return self.evaluated, train

    @classmethod
    def from_saved(cls, params: PyTree, train: PyTree) -> "TrainState":
        """The inverse of for_saving."""
        averaged = "params" in train
        return cls(
            step=train["step"],
            params=train["params"] if averaged else params,
            opt_state=train["opt_state"],
            ema=params if averaged else None,
        )


def create(params: PyTree, tx: optax.GradientTransformation, *, ema: bool) -> TrainState:
    """A state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=tx.init(params),
        # A copy: the step consumes its state, and no buffer may be consumed twice.
        ema=jax.tree.map(jnp.copy, params) if ema else None,
    )
