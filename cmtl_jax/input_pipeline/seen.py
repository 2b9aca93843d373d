"""How the network sees pictures, but for mean and deviation: their scale, contrast and detail."""

import dataclasses

import ml_collections
import numpy as np

from cmtl_jax.input_pipeline import contrast, detail, resize


@dataclasses.dataclass(frozen=True)
class Seen:
    """What is done to each whole picture before anything else, in this order.

    Attributes:
        scale: of the sides (key input.scale).
        contrast: standard deviation of grey levels that it is brought to (key input.contrast); 0:
            as it is.
        detail: level that its fine detail is brought to (key input.detail); 0: as it is.
    """

    scale: float = 1.0
    contrast: float = 0.0
    detail: float = 0.0

    @classmethod
    def of(cls, settings: ml_collections.ConfigDict) -> "Seen":
        """As config.input says."""
        return cls(settings.scale, settings.contrast, settings.detail)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Of such a picture as it is seen."""
        return resize.scaled_size(height, width, self.scale)

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """A picture [H, W, C] uint8 as it is seen, uint8 of `size`."""
        pixels = resize.scaled_image(pixels, self.scale)
        if self.contrast:
            pixels = contrast.at(pixels, self.contrast)
        return detail.at(pixels, self.detail) if self.detail else pixels

    def text(self) -> str:
        """For people; empty if pictures are seen as they are."""
        parts = []
        if self.scale != 1:
            how = "area averages" if self.scale < 1 else "bicubic"
            parts.append(f"sides times {self.scale:g} ({how})")
        if self.contrast:
            parts.append(f"contrast brought to a standard deviation of {self.contrast:g}")
        if self.detail:
            parts.append(f"fine detail brought to level {self.detail:g}")
        return ", ".join(parts)


def at(settings: ml_collections.ConfigDict, scale: float) -> Seen:
    """The same at another scale, for further looks (config.input.looks and close_scale)."""
    return dataclasses.replace(Seen.of(settings), scale=scale)


def again_text(settings: ml_collections.ConfigDict) -> str:
    """For people, what config.input.looks or config.input.close does; empty if nothing."""
    if settings.looks:
        scales = " and ".join(f"{scale:g}" for scale in settings.looks)
        return f"every one once more at sides times {scales}, maps averaged"
    if not settings.close:
        return ""
    return (
        f"those whose people are counted less than {settings.close:g} pixels apart once more at "
        f"sides times {settings.close_scale:g}, maps averaged"
    )
