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
    adam = optax.adam(schedule(config, steps), b1=config.b1, b2=config.b2, eps=config.eps)
    if config.grad_clip:
        return optax.chain(optax.clip_by_global_norm(config.grad_clip), adam)
    return adam
