"""Which pictures of an evaluation its report shows."""

from collections.abc import Sequence

import numpy as np

from cmtl_jax.metrics import ImageMetrics

_STRAY = 1  # person counted where nobody is; pictures with less are not shown for it


def choose(images: Sequence[ImageMetrics], number: int) -> dict[str, list[int]]:
    """Positions of pictures by why they are shown: at most `number` in all, each once.

    A third, rounded up, are those with the largest errors; of the others a third, rounded down,
    those with most people counted where nobody is; the rest those with the smallest errors.
    """
    number = min(number, len(images))
    by_error = np.array([abs(image.error) for image in images]).argsort(kind="stable").tolist()
    worst = by_error[::-1][: -(-number // 3)]
    stray = np.nan_to_num([image.stray for image in images])
    by_stray = [i for i in stray.argsort(kind="stable")[::-1].tolist() if stray[i] >= _STRAY]
    astray = [i for i in by_stray if i not in worst][: number // 3]
    others = [i for i in by_error if i not in worst and i not in astray]
    return {
        "largest errors": worst,
        "most counted where nobody is": astray,
        "smallest errors": others[: number - len(worst) - len(astray)],
    }
