"""What becomes of a drawn canvas in a camera: light, exposure, blur and noise (ours).

Bit-exact like `scenes`, which it photographs: the same generator and canvas give the same bytes.
"""

import cv2
import numpy as np

# One picture pixel is SUPER x SUPER canvas pixels.
SUPER = 2


def take(
    light_rng: np.random.Generator, noise_rng: np.random.Generator, canvas: np.ndarray
) -> np.ndarray:
    """The picture uint8 [H, W, 3] of a canvas uint16 [2H, 2W, 3] of colours in 0..255."""
    return sense(noise_rng, expose(light_rng, light(light_rng, canvas)))


def light(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Averages the canvas down and lights it: float32 [H, W, 3], 0 and above."""
    height, width = canvas.shape[0] // SUPER, canvas.shape[1] // SUPER
    # Exact: sums of four integers.
    picture = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    x = (np.arange(width, dtype=np.float32) / width - 0.5)[None, :]
    y = (np.arange(height, dtype=np.float32) / height - 0.5)[:, None]

    across, down = rng.uniform(-0.35, 0.35, 2).astype(np.float32)
    field = 1 + across * x + down * y
    if rng.random() < 0.35:
        field = field * (1 - np.float32(rng.uniform(0.3, 1.0)) * (x * x + y * y))
    if rng.random() < 0.35:  # the shadow of something outside the picture
        corners = np.stack(
            [rng.uniform(-0.3, 1.3, 4) * width, rng.uniform(-0.3, 1.3, 4) * height], 1
        )
        mask = np.zeros((height, width), np.uint8)
        hull = cv2.convexHull(np.round(corners).astype(np.int32))
        cv2.fillConvexPoly(mask, hull, 255)
        mask = cv2.blur(mask, (9, 9))
        field = field * (1 - mask * np.float32(rng.uniform(0.2, 0.55) / 255))
    if rng.random() < 0.25:  # against the light: glare from above, haze over what is far
        haze = np.clip(1 - np.arange(height, dtype=np.float32) / (0.8 * height), 0, 1)
        haze = (haze * np.float32(rng.uniform(0.15, 0.4)))[:, None, None]
        picture = picture * (1 - haze) + 235 * haze
    tints = ((1.0, 1.0, 1.0), (1.12, 1.0, 0.82), (0.86, 0.95, 1.15), (1.1, 0.92, 0.88))
    tint = np.array(tints[int(rng.choice(4, p=[0.4, 0.25, 0.2, 0.15]))], np.float32)
    return picture * np.maximum(field, 0.2)[..., None] * tint


def expose(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Sets brightness and contrast to values drawn at random: uint8 [H, W, 3].

    Without this, dense crowds would be darker and flatter than empty squares, and a count could
    be had from the mean grey value.
    """
    levels = cv2.cvtColor(np.clip(picture, 0, 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
    levels = levels.astype(np.int64)
    mean = int(levels.sum()) / levels.size
    spread = (max(int((levels * levels).sum()) / levels.size - mean * mean, 1.0)) ** 0.5
    aim_mean, aim_spread = rng.uniform(70, 180), rng.uniform(28, 58)
    gain = min(max(aim_spread / spread, 0.45), 1.6)
    out = (picture - np.float32(mean)) * np.float32(gain) + np.float32(aim_mean)
    return np.clip(out, 0, 255).astype(np.uint8)


def sense(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Slight blur and sensor noise: uint8 [H, W, 3]."""
    blur = rng.uniform(0.0, 0.65)
    if blur > 0.25:
        picture = cv2.GaussianBlur(picture, (3, 3), blur)
    # The sum of three bytes is close to normal, and the same everywhere: deviation 128.
    strength = rng.uniform(1, 5) / 128
    height, width = picture.shape[:2]
    grain = rng.integers(0, 256, (3, height, width), dtype=np.uint8).sum(0, dtype=np.int16) - 382
    noise = np.round(grain * np.float32(strength)).astype(np.int16)
    return np.clip(picture + noise[..., None], 0, 255).astype(np.uint8)
