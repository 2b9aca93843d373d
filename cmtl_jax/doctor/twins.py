"""Pictures that are the same, nearly the same, or of the same scene, by their thumbnails."""

from collections.abc import Sequence

import cv2
import numpy as np

# Of 567,645 pairs of ShanghaiTech's and UCF_CC_50's pictures twelve correlate so much; all show the
# same photograph, in colour and grey, at another size or cut differently.
SIMILAR = 0.95
SAME_SCENE = 0.8

_SIDE = 32


def thumbnail(grey: np.ndarray) -> np.ndarray:
    """float32 [1024] of mean 0 and norm 1, all 0 for a picture of one grey; from uint8 [H, W]."""
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    small = (small - small.mean()).ravel()
    norm = float(np.linalg.norm(small))
    return small / norm if norm > _SIDE else np.zeros_like(small)  # one grey level of deviation


def similar(thumbnails: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of pictures that are nearly the same."""
    if not thumbnails:
        return []
    matrix = np.stack(thumbnails)
    pairs = []
    for i in range(len(matrix) - 1):
        close = np.flatnonzero(matrix[i + 1 :] @ matrix[i] > SIMILAR) + i + 1
        pairs += [(i, int(j)) for j in close]
    return pairs


def scenes(thumbnails: Sequence[np.ndarray], most: int = 500) -> list[int]:
    """One picture of each scene: frames of one camera are no independent witnesses."""
    chosen: list[int] = []
    seen = np.zeros((most, _SIDE * _SIDE), np.float32)
    for i, one in enumerate(thumbnails):
        if len(chosen) == most:
            break
        if (seen[: len(chosen)] @ one).max(initial=0.0) < SAME_SCENE:
            seen[len(chosen)] = one
            chosen.append(i)
    return chosen
