"""A picture as the network sees it, but for its mean and deviation: scaled, with even detail."""

import numpy as np

from cmtl_jax.input_pipeline import detail, resize


def image(pixels: np.ndarray, scale: float, detail_level: float) -> np.ndarray:
    """A picture [H, W, C] uint8 of `resize.scaled_size`.

    Args:
        pixels: uint8 [H, W, C].
        scale: of the sides (key input.scale).
        detail_level: that fine detail is brought to after that (key input.detail); 0: as it is.
    """
    scaled = resize.scaled_image(pixels, scale)
    return detail.at(scaled, detail_level) if detail_level else scaled
