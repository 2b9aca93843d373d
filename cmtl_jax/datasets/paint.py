"""What scenes and textures are painted with; bit-exact like them (ours)."""

import cv2
import numpy as np

# Polygons carry SHIFT fractional bits.
SHIFT = 4


def rgb(values) -> tuple[int, int, int]:
    """An RGB colour as OpenCV takes it, neither black nor white."""
    return tuple(np.round(np.clip(values, 3, 252)).astype(int).tolist())


def blotches(rng: np.random.Generator, height: int, width: int, cell: int) -> np.ndarray:
    """Smooth noise uint8 [height, width] around 128 whose features are about `cell` pixels."""
    small = rng.integers(0, 256, (height // cell + 3, width // cell + 3), dtype=np.uint8)
    size = ((width // cell + 3) * cell, (height // cell + 3) * cell)
    big = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR_EXACT)
    return big[cell : cell + height, cell : cell + width]
