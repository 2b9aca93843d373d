"""Drawn surfaces without people, seen from near or far; the project's own construction.

Pebbles, leaves, confetti, spots, bricks, beads, grass, straw, wood, marble, cloth and print: what a
network that learned dense crowds from a few hundred pictures takes for heads. A plane is drawn
once, laid out in perspective, and photographed as scenes are.

The same seed and size give the same bytes, by the same means as in `scenes`.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from cmtl_jax.datasets import photograph
from cmtl_jax.datasets.paint import SHIFT, blotches, rgb
from cmtl_jax.datasets.photograph import SUPER

# Planes are SIDE x SIDE texels, mirrored where a picture reaches beyond.
SIDE = 1024

MIN_SIDE = 32

# Colours that surfaces and what lies on them often have; the rest are drawn from the whole cube.
_NATURAL = np.array(
    [
        (34, 26, 20),
        (72, 52, 36),
        (122, 90, 60),
        (168, 132, 92),
        (206, 178, 138),
        (232, 214, 186),
        (40, 58, 28),
        (74, 104, 46),
        (128, 150, 70),
        (176, 186, 112),
        (60, 62, 66),
        (112, 112, 112),
        (166, 166, 162),
        (226, 226, 222),
        (176, 64, 44),
        (206, 128, 52),
        (222, 182, 64),
        (86, 112, 150),
    ]
)


def render_texture(seed: int | Sequence[int], height: int, width: int) -> np.ndarray:
    """Draws a surface with nobody on it.

    Args:
      seed: a non-negative integer, or several, as `numpy.random.default_rng` takes them.
      height: of the picture, pixels, at least 32.
      width: of the picture, pixels, at least 32.

    Returns:
      The picture, uint8 [height, width, 3], RGB; it depends on the arguments alone.

    Raises:
      ValueError: a side is under 32 pixels, or the seed negative.
    """
    if height < MIN_SIDE or width < MIN_SIDE:
        raise ValueError(f"a texture needs sides of at least {MIN_SIDE}, got {height} x {width}")
    parts = (int(seed),) if isinstance(seed, (int, np.integer)) else tuple(map(int, seed))
    plan_rng, light_rng, noise_rng = np.random.default_rng((*parts, len(parts))).spawn(3)
    canvas = _surface(plan_rng, height, width)
    if plan_rng.random() < 0.35:  # two surfaces that meet
        region = _region(plan_rng, height, width)
        canvas = np.where(region[..., None], _surface(plan_rng, height, width), canvas)
    return photograph.take(light_rng, noise_rng, canvas.astype(np.uint16))


def _surface(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One plane as the camera sees it: uint8 [2H, 2W, 3]."""
    kinds = (_pieces, _lattice, _strokes, _veins, _weave, _print)
    kind = kinds[int(rng.choice(len(kinds), p=[0.36, 0.2, 0.14, 0.16, 0.08, 0.06]))]
    plane = kind(rng, _palette(rng))
    return _lay_out(rng, plane, height, width)


def _lay_out(rng: np.random.Generator, plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """The plane [SIDE, SIDE, 3] turned and, in half of the pictures, receding: [2H, 2W, 3]."""
    height, width = SUPER * height, SUPER * width
    # A turn by any angle up to a right one, from sums and products alone, which are exact.
    t = np.float64(rng.uniform(-1, 1)) if rng.random() < 0.6 else np.float64(0)
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    zoom = 1 / rng.uniform(0.7, 1.6)
    far = rng.uniform(1.2, 4.0) if rng.random() < 0.5 else 1.0
    row = (np.arange(height, dtype=np.float64) + 0.5) / height
    # Texels per canvas pixel: `zoom` at the lower edge, `far` times that at the upper.
    scale = zoom / (1 / far + (1 - 1 / far) * row)
    across = (np.arange(width, dtype=np.float64) + 0.5 - width / 2) * scale[:, None]
    along = np.cumsum(scale * scale / zoom)[:, None]
    u = across * cosine - along * sine + 64 * SIDE
    v = across * sine + along * cosine + 64 * SIDE
    return plane[_mirrored(v), _mirrored(u)]


def _mirrored(place: np.ndarray) -> np.ndarray:
    """Texel of each place, the plane mirrored at its edges."""
    texel = place.astype(np.int64) % (2 * SIDE)
    return np.minimum(texel, 2 * SIDE - 1 - texel)


def _region(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A part of the canvas with a straight or a ragged edge: bool [2H, 2W]."""
    height, width = SUPER * height, SUPER * width
    x = (np.arange(width) / width - rng.uniform(0.2, 0.8))[None, :]
    y = (np.arange(height) / height - rng.uniform(0.2, 0.8))[:, None]
    across, down = rng.uniform(-1, 1, 2)
    edge = across * x + down * y
    if rng.random() < 0.5:
        edge = (
            edge
            + (blotches(rng, max(height, width), max(height, width), 128)[:height, :width] - 128.0)
            / 300
        )
    return edge > 0


# ---------------------------------------------------------------------------- colours


def _palette(rng: np.random.Generator) -> np.ndarray:
    """Two to six colours, float64 [K, 3]: shades of one, of what is natural, or any."""
    number = int(rng.integers(2, 7))
    kind = rng.choice(["shades", "natural", "any"], p=[0.4, 0.4, 0.2])
    natural = _NATURAL[rng.integers(len(_NATURAL), size=number)].astype(np.float64)
    if kind == "shades":
        gain = rng.uniform(0.35, 1.5, (number, 1))
        return np.clip(natural[:1] * gain + rng.uniform(-10, 10, (number, 3)), 3, 252)
    if kind == "natural":
        return natural
    return rng.uniform(10, 250, (number, 3))


def _ground(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """A plane of one colour, a little uneven: uint8 [SIDE, SIDE, 3]."""
    depth = rng.uniform(0, 0.4)
    tone = 1 + (blotches(rng, SIDE, SIDE, int(rng.integers(8, 100))) - 128.0) / 128 * depth
    return np.clip(tone[..., None] * colour, 0, 255).astype(np.uint8)


# ---------------------------------------------------------------------------- kinds


def _outline(rng: np.random.Generator) -> np.ndarray:
    """Corners float64 [V, 2] of a convex piece about 1 across: round, angular or pointed."""
    kind = rng.choice(["round", "angular", "box", "leaf"], p=[0.4, 0.2, 0.2, 0.2])
    aspect = rng.uniform(0.3, 1.0)
    if kind == "box":
        corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    elif kind == "leaf":
        half = np.array([(-0.5, 0.0), (-0.3, -0.3), (0.0, -0.4), (0.3, -0.3), (0.5, 0.0)])
        corners = np.concatenate([half, -half[1:-1]])
    else:
        number = 12 if kind == "round" else int(rng.integers(4, 8))
        angle = np.linspace(0, 2 * np.pi, number, endpoint=False)
        corners = np.round(0.5 * np.stack([np.cos(angle), np.sin(angle)], 1), 5)
        if kind == "angular":
            corners = corners * rng.uniform(0.75, 1.0, (number, 1))
    return corners * (1.0, aspect)


def _turned(corners: np.ndarray, t: float) -> np.ndarray:
    """Corners turned by the angle whose half has the tangent t."""
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    return corners @ np.array([(cosine, sine), (-sine, cosine)])


def _fill(plane: np.ndarray, corners: np.ndarray, colour: tuple[int, int, int]) -> None:
    fixed = np.round(corners * (1 << SHIFT)).astype(np.int32)
    cv2.fillConvexPoly(plane, fixed, colour, cv2.LINE_8, SHIFT)


def _pieces(rng: np.random.Generator, palette: np.ndarray) -> np.ndarray:
    """Pieces strewn on a ground, sparse or in heaps: pebbles, leaves, confetti, spots, beans."""
    plane = _ground(rng, palette[0] * rng.uniform(0.4, 1.0))
    size = 6 * 8 ** rng.random()  # 6 to 48 texels
    cover = 0.15 * 16 ** rng.random()  # pieces' area over the plane's
    number = int(min(cover * (SIDE / size) ** 2, 9000))
    spread = rng.uniform(0.0, 0.5)
    turn = rng.choice([0.0, rng.uniform(0, 0.3), 1.0])
    shapes = [_outline(rng) for _ in range(int(rng.integers(1, 4)))]
    shade, sheen = rng.choice([0.0, rng.uniform(0.2, 0.7)]), rng.choice([0.0, 0.25], p=[0.6, 0.4])
    hollow = rng.random() < 0.15
    side = _extent(number, cover, size)
    place = rng.uniform(0, side, (number, 2))
    which = rng.integers(len(shapes), size=number)
    colours = palette[rng.integers(1, len(palette), number)] * rng.uniform(
        1 - spread, 1 + spread, (number, 1)
    )
    sizes = size * rng.uniform(1 - spread, 1 + spread, number)
    turns = turn * rng.uniform(-1, 1, number)
    for i in range(number):
        piece = sizes[i] * _turned(shapes[which[i]], turns[i])
        if shade:
            _fill(plane, piece * 1.1 + place[i] + 0.12 * size, rgb(palette[0] * (1 - shade)))
        _fill(plane, piece + place[i], rgb(colours[i]))
        if hollow:
            _fill(plane, piece * 0.55 + place[i], rgb(palette[0]))
        elif sheen:
            light = colours[i] + sheen * (255 - colours[i])
            _fill(plane, piece * 0.45 + place[i] - 0.12 * size, rgb(light))
    return _repeated(plane, side)


def _extent(number: int, cover: float, size: float) -> int:
    """Side of the square that so many pieces cover so densely, at most SIDE texels."""
    return int(min(SIDE, max(64.0, size * (number / cover) ** 0.5)))


def _repeated(plane: np.ndarray, side: int) -> np.ndarray:
    """The plane's first `side` texels, mirrored over and over."""
    texel = np.arange(SIDE) % (2 * side)
    texel = np.minimum(texel, 2 * side - 1 - texel)
    return plane[texel[:, None], texel[None, :]]


def _lattice(rng: np.random.Generator, palette: np.ndarray) -> np.ndarray:
    """One piece again and again in rows: tiles, bricks, beads, windows, dots, seats."""
    plane = _ground(rng, palette[0])
    size = 8 * 6 ** rng.random()
    gap = rng.uniform(1.0, 1.8, 2) * (1.0, rng.uniform(0.5, 1.0))
    offset = rng.choice([0.0, 0.5])
    jitter = rng.choice([0.0, rng.uniform(0.02, 0.2)])
    missing = rng.choice([0.0, rng.uniform(0.1, 0.5)], p=[0.6, 0.4])
    shape = _outline(rng)
    uneven = rng.uniform(0.0, 0.35)
    sheen = rng.choice([0.0, 0.3])
    columns = int(SIDE / (size * gap[0])) + 2
    rows = int(SIDE / (size * gap[1])) + 2
    regular = rng.random() < 0.5
    for row in range(rows):
        for column in range(columns):
            place = np.array((column + offset * (row % 2), row)) * gap * size
            place = place + jitter * size * rng.uniform(-1, 1, 2)
            pick = (row + column) if regular else int(rng.integers(64))
            colour = palette[1 + pick % (len(palette) - 1)] * rng.uniform(1 - uneven, 1 + uneven)
            if rng.random() < missing:
                continue
            _fill(plane, size * shape + place, rgb(colour))
            if sheen:
                _fill(plane, 0.5 * size * shape + place, rgb(colour + sheen * (255 - colour)))
    return plane


def _strokes(rng: np.random.Generator, palette: np.ndarray) -> np.ndarray:
    """Long thin pieces: grass, straw, needles, fur, scratches."""
    plane = _ground(rng, palette[0])
    length, thick = 12 * 10 ** rng.random(), int(rng.integers(1, 5))
    number = int(min(rng.uniform(0.3, 3.0) * SIDE * SIDE / (length * thick), 12_000))
    start = rng.uniform(0, SIDE, (number, 2))
    lean = rng.uniform(-1, 1)
    t = lean + rng.choice([0.1, 0.4, 1.0]) * rng.uniform(-1, 1, number)
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    reach = length * rng.uniform(0.5, 1.5, number)
    stop = start + reach[:, None] * np.stack([cosine, sine], 1)
    colours = palette[rng.integers(1, len(palette), number)] * rng.uniform(0.7, 1.3, (number, 1))
    ends = np.round(np.stack([start, stop], 1)).astype(int).tolist()
    for (a, b), colour in zip(ends, colours):
        cv2.line(plane, a, b, rgb(colour), thick, cv2.LINE_8)
    return plane


def _veins(rng: np.random.Generator, palette: np.ndarray) -> np.ndarray:
    """Noise of several sizes through a palette: marble, bark, rock, spots of fur, foliage."""
    cell = int(6 * 10 ** rng.random())
    rough = rng.uniform(0.3, 0.8)
    level, weight = np.zeros((SIDE, SIDE), np.float64), 1.0
    while cell >= 2:
        level += weight * (blotches(rng, SIDE, SIDE, cell) - 128.0)
        cell, weight = cell // 2, weight * rough
    if rng.random() < 0.4:  # drawn out along one side
        times = int(rng.integers(3, 12))
        level = np.repeat(level[:, : SIDE // times + 1], times, 1)[:, :SIDE]
    steps = level * (len(palette) / rng.uniform(80, 240)) + 64 * len(palette)
    place = steps.astype(np.int64)
    plane = palette[place % len(palette)]
    if rng.random() < 0.5:  # colours run into one another
        share = (steps - place)[..., None]
        plane = plane + share * (palette[(place + 1) % len(palette)] - plane)
    return np.clip(plane, 0, 255).astype(np.uint8)


def _weave(rng: np.random.Generator, palette: np.ndarray) -> np.ndarray:
    """Threads over and under one another: sacking, cloth, baskets, wire."""
    period = int(rng.integers(6, 32))
    gap = rng.uniform(0.0, 0.5)
    wobble = rng.uniform(0, 0.4) * period
    cell = 8 * period
    x = np.arange(SIDE)[None, :] + (blotches(rng, SIDE, SIDE, cell) - 128.0) / 128 * wobble
    y = np.arange(SIDE)[:, None] + (blotches(rng, SIDE, SIDE, cell) - 128.0) / 128 * wobble
    x, y = x / period + 16, y / period + 16
    over = (x.astype(np.int64) + y.astype(np.int64)) % 2 == 0
    across, along = (1 - np.abs(2 * (place % 1) - 1) for place in (x, y))  # 1 on a thread's ridge
    ridge = np.where(over, along, across)
    pick = np.where(over, 1, len(palette) - 1)
    plane = palette[pick] * (0.5 + 0.5 * ridge)[..., None]
    plane = np.where((ridge < gap)[..., None], palette[0], plane)
    plane *= rng.uniform(0.85, 1.15, (SIDE, SIDE))[..., None]
    return np.clip(plane, 0, 255).astype(np.uint8)


def _print(rng: np.random.Generator, palette: np.ndarray) -> np.ndarray:
    """Lines of letters: pages, posters, signs."""
    plane = _ground(rng, palette[0])
    size = rng.uniform(0.5, 1.8)
    line = int(26 * size * rng.uniform(1.0, 1.8))
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789    "
    face = int(rng.integers(0, 6))
    for y in range(line, SIDE + line, line):
        text = "".join(letters[i] for i in rng.integers(len(letters), size=int(90 / size)))
        ink = rgb(palette[1 + int(rng.integers(len(palette) - 1))])
        cv2.putText(plane, text, (-8, y), face, size, ink, int(rng.integers(1, 4)), cv2.LINE_8)
    return plane
