"""The pure training step; compiled and placed on devices elsewhere."""

import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from cmtl_jax import losses
from cmtl_jax.input_pipeline.batch import Batch
from cmtl_jax.losses import SumCount
from cmtl_jax.models.output import CmtlOutput
from cmtl_jax.training import optimizer
from cmtl_jax.training.state import PyTree, TrainState

_static = functools.partial(flax.struct.field, pytree_node=False)


@flax.struct.dataclass
class Objective:
    """Density loss + group_weight * group loss (paper, Eq. 3) + block_weight * block loss (ours).

    An argument of the step. Its class weights are an array, no part of the program, which runs
    that differ in nothing else (the folds of a cross-validation) then share.

    Attributes:
        class_weights: of the crowd-count groups, float32 [G].
        group_weight: the paper's lambda.
        group_loss: kind, see losses.group_loss.
        density_reduction: see losses.density_loss.
        density_scale: see losses.density_loss.
        block_weight: of losses.block_loss; 0: without, as in the paper.
        block_side: see losses.block_loss.
        block_linear: likewise.
    """

    class_weights: jax.Array
    group_weight: float = _static()
    group_loss: str = _static()
    density_reduction: str = _static()
    density_scale: float = _static()
    block_weight: float = _static(default=0.0)
    block_side: int = _static(default=32)
    block_linear: float = _static(default=0.0)

    def __call__(self, output: CmtlOutput, batch: Batch) -> dict[str, SumCount]:
        """The parts of the loss by name.

        group_loss is missing without group logits, block_loss where it weighs nothing.
        """
        maps = output.density, batch.density, batch.size, batch.weight
        measure = {"scale": self.density_scale, "reduction": self.density_reduction}
        parts = {"density_loss": losses.density_loss(*maps, **measure)}
        if self.block_weight:
            parts["block_loss"] = losses.block_loss(
                *maps, **measure, side=self.block_side, linear=self.block_linear
            )
        if output.group_logits is not None:
            parts["group_loss"] = losses.group_loss(
                output.group_logits,
                batch.group,
                batch.weight,
                self.class_weights,
                kind=self.group_loss,
            )
        return parts

    def total(self, parts: dict[str, jax.Array]) -> jax.Array:
        """The loss from its divided parts."""
        return (
            parts["density_loss"]
            + self.block_weight * parts.get("block_loss", 0.0)
            + self.group_weight * parts.get("group_loss", 0.0)
        )


def make_train_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    ema_decay: float,
    ema_warmup: bool = True,
    seed: int,
) -> Callable[..., tuple[TrainState, dict]]:
    """The training step: step(state, batch, objective, axis_name=None) -> (state, metrics).

    With axis_name the batch is this device's part and sums run over that axis. Either way a loss is
    the sum over all valid pixels divided by their number, never a mean of means; the result does
    not depend on how examples are spread over devices.

    Metrics are (sum, count) pairs over the whole batch by name, and norms of gradients.

    Args:
        model: the network.
        tx: the optimizer.
        ema_decay: of the averaged parameters, a step.
        ema_warmup: the decay is lower at first, so that the average forgets where it began. Without,
            the initial parameters keep a share of ema_decay ** steps.
        seed: of dropout.
    """

    def step(
        state: TrainState, batch: Batch, objective: Objective, axis_name: str | None = None
    ):
        def over_devices(tree: PyTree) -> PyTree:
            return jax.lax.psum(tree, axis_name) if axis_name else tree

        keys = _example_keys(seed, state.step, len(batch.weight), axis_name)

        def loss_of(params: PyTree):
            output = model.apply({"params": params}, batch.image, batch.size, keys)
            parts = objective(output, batch)
            divided = {
                name: part.sum / jnp.maximum(over_devices(part.count), 1)
                for name, part in parts.items()
            }
            return objective.total(divided), (parts, output)

        (loss, (parts, output)), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        loss, gradient = over_devices((loss, gradient))
        updates, opt_state = tx.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            decay = ema_decay
            if ema_warmup:  # early averages would be mostly the initial values
                decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
            ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, params)
        metrics = over_devices(parts | _measure(output, batch))
        metrics["loss"] = loss
        metrics["grad_norm"] = _norm(gradient)
        metrics["first_layer_grad_norm"] = optax.tree.norm(_first_layers(gradient))
        return TrainState(state.step + 1, params, opt_state, ema), metrics

    return step


def side_by_side(step: Callable[..., tuple[TrainState, dict]]) -> Callable[..., tuple]:
    """A step of several runs at once, each with its own parameters, batch and class weights.

    Takes and returns tuples, one entry a run: (states, batches, objectives, axis_name=None) ->
    (states, metrics). The objectives differ in nothing but their class weights.
    """

    def together(states: tuple, batches: tuple, objectives: tuple, axis_name: str | None = None):
        step_of_one = functools.partial(step, axis_name=axis_name)
        if len(states) == 1:
            state, metrics = step_of_one(states[0], batches[0], objectives[0])
            return (state,), (metrics,)
        stacked = (_stack(trees) for trees in (states, batches, objectives))
        state, metrics = jax.vmap(step_of_one)(*stacked)
        return tuple(
            tuple(jax.tree.map(lambda x, i=i: x[i], tree) for i in range(len(states)))
            for tree in (state, metrics)
        )

    return together


def cut_inside(step: Callable[..., tuple]) -> Callable[..., tuple]:
    """A step of `side_by_side` that makes its batches itself, out of cuts and a Cutter."""

    def cutting(states: tuple, cuts: tuple, objectives: tuple, cutter, axis_name=None):
        batches = tuple(cutter(one) for one in cuts)
        return step(states, batches, objectives, axis_name=axis_name)

    return cutting


def _stack(trees: tuple[PyTree, ...]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _first_layers(gradient: PyTree) -> list[PyTree]:
    """Gradients of the layers that read the picture: the shared one, or one of each column."""
    stages = [gradient["shared"]] if "shared" in gradient else gradient.values()
    return [stage["conv1"] for stage in stages if "conv1" in stage]


def _norm(gradient: PyTree) -> jax.Array:
    """optax.tree.norm, with one sum for all small arrays (see optimizer.is_small)."""
    leaves = jax.tree.leaves(gradient)
    small = [x.ravel() for x in leaves if optimizer.is_small(x)]
    large = [x for x in leaves if not optimizer.is_small(x)]
    return optax.tree.norm([*large, jnp.concatenate(small)])


def _example_keys(seed: int, step: jax.Array, number: int, axis_name: str | None) -> jax.Array:
    """One key an example of the global batch, whichever device it is on."""
    example = jnp.arange(number)
    if axis_name:
        example = example + number * jax.lax.axis_index(axis_name)
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, example)


def _measure(output: CmtlOutput, batch: Batch) -> dict[str, SumCount]:
    weight = batch.weight
    examples = weight.sum()
    pixels = (weight * batch.size[:, 0] * batch.size[:, 1]).sum()
    density = output.density * weight[:, None, None, None]
    count = density.sum(axis=(1, 2, 3))
    measured = {
        "count_error": SumCount(jnp.abs(count - weight * batch.count).sum(), examples),
        "density": SumCount(density.sum(), pixels),
        "density_true": SumCount((weight[:, None, None, None] * batch.density).sum(), pixels),
        "density_square": SumCount(jnp.square(density).sum(), pixels),
    }
    if output.group_logits is not None:
        hit = output.group_logits.argmax(axis=-1) == batch.group
        measured["group_accuracy"] = SumCount((weight * hit).sum(), examples)
    return measured
