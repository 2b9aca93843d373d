"""The validation split: training pictures held out, stratified by count."""

from collections.abc import Sequence

import numpy as np

from cmtl_jax.errors import UserError


def stratified(counts: Sequence[float], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Holds out round(fraction * N) pictures, at least one, spread evenly over the counts.

    The pictures are ordered by count and cut into as many runs as pictures are held out; one of
    each run is drawn. One draw of 30 pictures is mostly noise otherwise (ours; the authors' code
    takes any 10 %).

    Args:
        counts: people in each picture.
        fraction: of the pictures to hold out, 0..1; 0 holds out none.
        seed: of the draw.

    Returns:
        Positions to train on and positions held out, both ascending.

    Raises:
        UserError: too few pictures for both.
    """
    number = len(counts)
    if fraction == 0:
        return list(range(number)), []
    held_out = max(1, round(fraction * number))
    if held_out >= number:
        raise UserError(
            f"{number} training picture(s) are too few to hold {held_out} out for validation; "
            "add pictures or set --config.dataset.val_fraction=0"
        )
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.permutation(number), counts))  # ties in random order
    val = sorted(int(rng.choice(run)) for run in np.array_split(order, held_out))
    return sorted(set(range(number)) - set(val)), val
