"""Adam, or Muon for the convolutions, with a learning-rate schedule: all from optax."""

import functools

import jax
import ml_collections
import optax
from optax import contrib

_MATRIX = contrib.MuonDimensionNumbers((0, 1, 2), 3)  # a kernel's window and inputs by its outputs
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al., 2024


def schedule(config: ml_collections.ConfigDict, steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then constant or a cosine to zero at `steps`."""
    warmup = min(config.warmup_steps, max(steps - 1, 0))
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0 if warmup else config.learning_rate, config.learning_rate, warmup, steps
        )
    if not warmup:
        return optax.constant_schedule(config.learning_rate)
    return optax.linear_schedule(0.0, config.learning_rate, warmup)


def build(config: ml_collections.ConfigDict, steps: int) -> optax.GradientTransformation:
    """Adam (paper, 4: momentum 0.9 is its beta 1), or Muon (Jordan et al., 2024; ours).

    Muon makes the steps of a matrix orthogonal: all its directions are learnt equally fast, where
    Adam's steps follow the few that dense crowds pull at. A convolution's kernel is a matrix from
    its window to its channels here. The steps are as long as Adam's (Liu et al., 2025), so that
    one learning rate serves both; Adam, which trains all else, has Nesterov's momentum then, too.

    Args:
        config: the `optimizer` part of the configuration.
        steps: of the whole training.
    """
    rate = schedule(config, steps)
    muon = config.name == "muon"
    adam = optax.adam(rate, b1=config.b1, b2=config.b2, eps=config.eps, nesterov=muon)
    transforms = {"adam": adam, "adam_together": optax.flatten(adam)}
    if muon:
        transforms["muon"] = contrib.muon(
            rate,
            # Given once an iteration, they make optax loop: unrolled, the iterations are a third of
            # what there is to compile.
            ns_coeffs=(_NEWTON_SCHULZ,) * 5,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=lambda params: jax.tree.map(lambda _: _MATRIX, params),
        )
    parts = [optax.partition(transforms, functools.partial(_labels, muon=muon))]
    if config.weight_decay:  # in the gradient, not decoupled from it: as torch.optim.Adam does
        parts.insert(0, optax.add_decayed_weights(config.weight_decay))
    if config.grad_clip:
        parts.insert(0, optax.clip_by_global_norm(config.grad_clip))
    if config.head_factor != 1:
        # The first fully connected layer reads 4096 positive features: where Adam moves all its
        # weights one way, its output moves by thousands of times as much.
        parts.append(optax.masked(optax.scale(config.head_factor), _is_head))
    return optax.chain(*parts)


def is_small(x: jax.Array) -> bool:
    """Whether an array, such as a bias, is computed together with others like it.

    XLA compiles the operations of each array by themselves; those of the many small ones would be
    most of them.
    """
    return x.size < 10_000


def _labels(params: dict, muon: bool) -> dict:
    """By which transformation each array is trained; Muon takes the kernels between several maps."""

    def label(x: jax.Array) -> str:
        if muon and x.ndim == 4 and min(x.shape[2:]) > 1:
            return "muon"
        return "adam_together" if is_small(x) else "adam"

    return jax.tree.map(label, params)


def _is_head(params: dict) -> dict:
    return {name: name == "head" for name in params}
