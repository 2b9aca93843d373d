"""Adam with its learning-rate schedule, from optax."""

import ml_collections
import optax


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
    """Adam (paper, 4: momentum 0.9 is its beta 1).

    Args:
        config: the `optimizer` part of the configuration.
        steps: of the whole training.
    """
    parts = [optax.adam(schedule(config, steps), b1=config.b1, b2=config.b2, eps=config.eps)]
    if config.weight_decay:  # in the gradient, not decoupled from it: as torch.optim.Adam does
        parts.insert(0, optax.add_decayed_weights(config.weight_decay))
    if config.grad_clip:
        parts.insert(0, optax.clip_by_global_norm(config.grad_clip))
    if config.head_factor != 1:
        # The first fully connected layer reads 4096 positive features: where Adam moves all its
        # weights one way, its output moves by thousands of times as much.
        parts.append(optax.masked(optax.scale(config.head_factor), _is_head))
    return optax.chain(*parts)


def _is_head(params: dict) -> dict:
    return {name: name == "head" for name in params}
