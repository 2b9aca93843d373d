"""Watches for a dead density output: the failure that users of this network meet most."""

import logging
import math

from cmtl_jax.errors import UserError

ADVICE = (
    "start again in a new work folder with another seed (--config.seed), with "
    "--config.model.init=he, which starts alive, or with a lower --config.optimizer.learning_rate"
)


class DeadOutputGuard:
    """Ends (or warns of) a run whose density map is dead, and warns of a constant one.

    Dead: 0, or less than VANISHED of the true density, or no gradient in the first layer (a density
    of exactly 0 still has one where the count groups are learned). Constant: a variation of less
    than CONSTANT of the mean.
    """

    CONSTANT = 1e-2
    VANISHED = 1e-3

    def __init__(self, *, patience: int, stop: bool):
        """Patience: dead looks in a row before it acts. Stop: end the run, or only warn."""
        self._patience = patience
        self._stop = stop
        self._dead = 0

    def look(
        self, step: int, mean: float, mean_square: float, gradient: float, true_mean: float
    ) -> None:
        """Looks at one batch.

        Args:
            step: of the training.
            mean: of the predicted density over all valid pixels.
            mean_square: of its square.
            gradient: norm of the first layer's gradient.
            true_mean: of the true density.

        Raises:
            UserError: the output is dead and the guard is to stop.
        """
        deviation = math.sqrt(max(mean_square - mean**2, 0.0))
        # In float32 the difference of a constant map's two sums is rounding, not variation.
        vanished = mean_square == 0 or mean < self.VANISHED * true_mean
        dead = vanished or gradient == 0
        self._dead = self._dead + 1 if dead else 0
        if self._dead >= self._patience:
            message = (
                f"the density output is dead at step {step}: it is "
                f"{'0 everywhere' if vanished else 'without gradient in the first layer'} "
                f"and will not recover; {ADVICE}"
            )
            if self._stop:
                raise UserError(message + " (--config.train.stop_on_dead=False only warns)")
            logging.warning(message)
            self._dead = 0
        elif not dead and deviation < self.CONSTANT * abs(mean):
            logging.warning(
                "the density output is constant at step %d (mean %.3g, deviation %.3g people per "
                "pixel); if this lasts, %s", step, mean, deviation, ADVICE
            )  # fmt: skip
