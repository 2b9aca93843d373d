"""Procedurally drawn pictures of crowds, with exact head points; the project's own construction.

A scene is planned first (camera, ground, buildings, people), then painted back to front at twice
the resolution, so that nearer people hide farther ones, then lit, exposed, blurred and made noisy.
Brightness and contrast of the finished picture are drawn at random and say next to nothing about
the number of people.

The same seed and size give the same bytes: drawing runs on fixed-point coordinates, blurring on
OpenCV's bit-exact 8-bit filters, and sums that steer anything are sums of integers.
"""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from cmtl_jax.datasets import photograph
from cmtl_jax.datasets.paint import SHIFT, blotches, rgb
from cmtl_jax.datasets.photograph import SUPER

# A head counts if at least this share of its ellipse can be seen.
VISIBLE_SHARE = 0.5

# A head is an ellipse, in units of its own diameter.
HEAD_HALF_WIDTH = 0.5
HEAD_HALF_HEIGHT = 0.6

# Quantiles of the number of people, for a picture of REFERENCE_AREA square pixels: one picture in
# twelve has nobody, half have fewer than 45 people, one in eleven has more than 255.
REFERENCE_AREA = 192 * 256
COUNT_QUANTILES = (
    (0.0, 0.08, 0.081, 0.30, 0.50, 0.70, 0.82, 0.91, 0.97, 1.0),
    (0.0, 0.0, 1.0, 16.0, 45.0, 95.0, 160.0, 255.0, 370.0, 520.0),
)

MIN_SIDE = 32
MOST_PEOPLE = 60_000  # labels are 16-bit

_SKIN = np.array(
    [(245, 214, 190), (232, 190, 160), (214, 163, 126), (178, 124, 88), (133, 88, 60), (88, 58, 42)]
)
_HAIR = np.array(
    [
        (22, 18, 17),
        (32, 24, 20),
        (46, 32, 24),
        (62, 42, 28),
        (94, 64, 40),
        (142, 62, 34),
        (190, 156, 98),
        (216, 190, 138),
        (150, 148, 146),
        (222, 220, 216),
    ]
)
_HAIR_SHARE = np.array([0.25, 0.22, 0.18, 0.13, 0.09, 0.02, 0.04, 0.03, 0.02, 0.02])
_CLOTHES = np.array(
    [
        (28, 30, 36),
        (52, 56, 66),
        (96, 100, 106),
        (160, 162, 166),
        (232, 232, 228),
        (30, 44, 92),
        (54, 92, 160),
        (120, 170, 214),
        (150, 30, 36),
        (206, 54, 48),
        (226, 126, 42),
        (236, 204, 70),
        (44, 110, 62),
        (110, 160, 84),
        (110, 60, 122),
        (222, 150, 172),
        (120, 84, 56),
        (196, 170, 130),
    ]
)
_TROUSERS = np.array(
    [(26, 28, 34), (36, 46, 78), (62, 82, 124), (70, 66, 62), (124, 110, 88), (178, 172, 160)]
)


@dataclasses.dataclass(frozen=True)
class Scene:
    """A drawn picture and its annotation.

    Attributes:
      picture: uint8 [H, W, 3], RGB.
      points: float32 [N, 2], head centres (x, y) in pixels, 0-based, all inside the picture
        (0 <= x <= W - 1, 0 <= y <= H - 1), farthest person first.
    """

    picture: np.ndarray
    points: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Camera:
    """Perspective: a head at height y has the diameter slope * (y - horizon) pixels."""

    height: int
    width: int
    back: float  # where the ground ends and the buildings begin, pixels from the top
    horizon: float
    slope: float
    stature: float  # from head centre to feet, in head diameters, as foreshortened by the tilt

    def diameter(self, y: np.ndarray | float) -> np.ndarray | float:
        return self.slope * (y - self.horizon)


@dataclasses.dataclass(frozen=True)
class _Shape:
    """One filled convex polygon: fixed-point canvas vertices int32 [V, 2] and an RGB colour."""

    vertices: np.ndarray
    colour: tuple[int, int, int]
    is_head: bool = False


@dataclasses.dataclass(frozen=True)
class _Figure:
    """Something that stands on the ground: drawn in order of `depth`, far (small) to near."""

    depth: float
    shapes: list[_Shape]
    head: tuple[float, float, float] | None = None  # x, y, diameter; None: not a person
    shadow: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Everything there is to paint: `backdrop` uint8 [2H, 2W, 3], `figures` from far to near."""

    camera: _Camera
    backdrop: np.ndarray
    figures: list[_Figure]
    shadow_depth: float


def render_scene(
    seed: int | Sequence[int], height: int, width: int, *, people: int | None = None
) -> Scene:
    """Draws a picture of a crowd.

    A head is annotated if and only if its centre lies inside the picture and is not hidden by
    anything nearer, and at least half of its ellipse (`VISIBLE_SHARE`) can be seen. People whose
    heads are hidden or lie outside are drawn, as far as they can be seen, but not counted.

    Args:
      seed: a non-negative integer, or several, as `numpy.random.default_rng` takes them.
      height: of the picture, pixels, at least 32.
      width: of the picture, pixels, at least 32.
      people: how many people to place; those for whom there is no room are left out. By default
        drawn from a heavy-tailed distribution, in proportion to the picture's area: none in one
        picture of twelve, at the median 45 for 192 x 256 pixels, at most 520.

    Returns:
      The scene; it depends on the arguments alone.

    Raises:
      ValueError: a side is under 32 pixels, `people` is out of range, or the seed negative.
    """
    if height < MIN_SIDE or width < MIN_SIDE:
        raise ValueError(f"a scene needs sides of at least {MIN_SIDE}, got {height} x {width}")
    if people is not None and not 0 <= people <= MOST_PEOPLE:
        raise ValueError(f"people must be between 0 and {MOST_PEOPLE}, got {people}")
    parts = (int(seed),) if isinstance(seed, (int, np.integer)) else tuple(map(int, seed))
    # NumPy takes 1, (1, 0) and (1, 0, 0) for the same seed; the length tells them apart.
    plan_rng, light_rng, noise_rng = np.random.default_rng((*parts, len(parts))).spawn(3)
    plan = _plan_scene(plan_rng, height, width, people)
    canvas, labels = _paint(plan)
    points = _visible_heads(plan, labels)
    return Scene(photograph.take(light_rng, noise_rng, canvas), points)


# ---------------------------------------------------------------------------- planning


def _plan_scene(rng: np.random.Generator, height: int, width: int, people: int | None) -> _Plan:
    if people is None:
        share = np.interp(rng.random(), *COUNT_QUANTILES)
        people = min(round(float(share) * height * width / REFERENCE_AREA), MOST_PEOPLE)
    camera = _place_camera(rng, height, width, people)
    backdrop = _draw_backdrop(rng, camera)
    figures = _place_things(rng, camera) + _place_people(rng, camera, people)
    figures.sort(key=lambda figure: figure.depth)
    shadow_depth = float(rng.choice([0.0, rng.uniform(0.15, 0.6)], p=[0.3, 0.7]))
    return _Plan(camera, backdrop, figures, shadow_depth)


def _place_camera(rng: np.random.Generator, height: int, width: int, people: int) -> _Camera:
    # Large crowds are seen from far enough to fit in; small ones from anywhere, so that head size
    # alone does not tell the count.
    density = people * REFERENCE_AREA / (height * width)
    most = float(np.interp(density, (0, 60, 150, 300, 500), (14.0, 14.0, 12.0, 10.0, 9.0)))
    near = rng.uniform(min(7.5, most - 1.5), most)
    far = max(5.5, near * rng.uniform(0.45, 0.85))
    back = height * rng.uniform(0.0, float(np.interp(density, (0, 150, 400), (0.5, 0.42, 0.2))))
    if rng.random() < 0.2:
        back = 0.0
    slope = max(near - far, 0.4) / (height - back)
    return _Camera(
        height=height,
        width=width,
        back=back,
        horizon=back - far / slope,
        slope=slope,
        stature=rng.uniform(4.0, 6.3),
    )


def _place_people(rng: np.random.Generator, camera: _Camera, people: int) -> list[_Figure]:
    """`people` figures in groups and alone, none on top of another, in no particular order."""
    if people == 0:
        return []
    height, width = camera.height, camera.width
    # Heads of the farthest people reach a little over the end of the ground behind them.
    unit = camera.diameter(camera.back)
    top = max(camera.back - 2.5 * unit, -0.5 * unit)
    bottom = height + 0.5 * camera.diameter(height)

    groups = int(rng.integers(1, 7))
    centre = np.stack([rng.uniform(0, width, groups), rng.uniform(top, height, groups)], 1)
    spread = rng.uniform(0.06, 0.3, (groups, 2)) * (width, 0.7 * height)
    alone = rng.choice([rng.uniform(0.1, 0.5), 1.0], p=[0.75, 0.25])
    tightness = rng.uniform(0.8, 1.15)

    kept = np.zeros((0, 2))
    for attempt in range(8):
        number = 2 * (people - len(kept)) + 8
        which = rng.integers(0, groups, number)
        grouped = centre[which] + rng.standard_normal((number, 2)) * spread[which]
        spaced = np.stack(
            [
                rng.uniform(-0.02 * width, 1.02 * width, number),
                rng.uniform(top, bottom, number),
            ],
            1,
        )
        # A group that is full spills over, so late attempts fall anywhere.
        anywhere = rng.random(number) < max(alone, attempt / 7)
        new = np.where(anywhere[:, None], spaced, grouped)
        inside = (new[:, 0] > -0.03 * width) & (new[:, 0] < 1.03 * width)
        inside &= (new[:, 1] >= top) & (new[:, 1] <= bottom)
        # On level ground there are more people per pixel where it is far away.
        rarity = camera.diameter(top) / camera.diameter(new[:, 1])
        inside &= rng.random(number) < rarity
        kept = _keep_apart(camera, kept, new[inside], tightness, people)
        if len(kept) >= people:
            break
    kept = np.round(kept, 3)

    style = _CrowdStyle.draw(rng)
    return _draw_people(rng, camera, kept, style)


def _keep_apart(
    camera: _Camera, kept: np.ndarray, new: np.ndarray, tightness: float, people: int
) -> np.ndarray:
    """Appends those of `new` [M, 2] that leave room for one another, up to `people` in all."""

    def clash(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether two heads would be too close: bool [len(one), len(other)]."""
        x, y = one[:, None, 0] - other[:, 0], one[:, None, 1] - other[:, 1]
        nearer = np.maximum(one[:, None, 1], other[:, 1])
        unit = tightness * camera.diameter(nearer)
        x /= 1.1
        y /= 0.72
        return x * x + y * y < unit * unit

    for start in range(0, len(new), 256):  # in blocks: memory stays linear in the crowd
        block = new[start : start + 256]
        block = block[~clash(block, kept).any(1)]
        conflicts = clash(block, block)
        chosen = np.zeros(len(block), bool)
        left = people - len(kept)
        for i in range(len(block)):
            if left and not conflicts[i][chosen].any():
                chosen[i] = True
                left -= 1
        kept = np.concatenate([kept, block[chosen]])
    return kept


@dataclasses.dataclass(frozen=True)
class _CrowdStyle:
    """What the people of one picture have in common."""

    facing: float  # share of people who show their face
    hats: float
    clothes_gain: float  # of the clothes' colours: winter coats to summer shirts
    uniform: int  # index of a colour that many wear, or -1
    hair_gain: float
    sun: float  # -1 from the left ... 1 from the right

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "_CrowdStyle":
        return cls(
            facing=rng.uniform(0.1, 0.9),
            hats=rng.choice([0.04, 0.2], p=[0.8, 0.2]),
            clothes_gain=rng.uniform(0.5, 1.35),
            uniform=int(rng.integers(len(_CLOTHES))) if rng.random() < 0.25 else -1,
            hair_gain=rng.uniform(0.8, 1.3),
            sun=rng.uniform(-1, 1),
        )


def _ellipse(half_width: float, half_height: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    corners = np.stack([x + half_width * np.cos(angle), y + half_height * np.sin(angle)], 1)
    return np.round(corners, 5)


_HEAD = _ellipse(HEAD_HALF_WIDTH, HEAD_HALF_HEIGHT)
_FACE = _ellipse(0.37, 0.40, 0.0, 0.15)
_SHEEN = _ellipse(0.22, 0.17, 0.0, -0.28)
_COLLAR = _ellipse(0.52, 0.32, 0.0, 0.68)
_BRIM = np.array([(-0.66, -0.12), (-0.5, -0.24), (0.5, -0.24), (0.66, -0.12)])
_LONG_HAIR = np.array(
    [(-0.5, -0.1), (0.5, -0.1), (0.58, 0.85), (0.3, 1.1), (-0.3, 1.1), (-0.58, 0.85)]
)
# Half widths in shoulder widths, heights from the shoulder (0) to the hip (1).
_TORSO = np.array(
    [
        (-0.42, -0.06),
        (0.42, -0.06),
        (0.84, 0.07),
        (1.0, 0.26),
        (0.82, 1.0),
        (-0.82, 1.0),
        (-1.0, 0.26),
        (-0.84, 0.07),
    ]
)
_SIDE = np.array([(0.2, 0.0), (0.84, 0.07), (1.0, 0.26), (0.82, 1.0), (0.35, 1.0)])


def _fixed(points: np.ndarray) -> np.ndarray:
    """Picture coordinates to the canvas's fixed-point coordinates."""
    canvas = SUPER * points + (SUPER - 1) / 2
    return np.round(canvas * (1 << SHIFT)).astype(np.int32)


def _draw_people(
    rng: np.random.Generator, camera: _Camera, heads: np.ndarray, style: _CrowdStyle
) -> list[_Figure]:
    n = len(heads)
    if n == 0:
        return []
    unit = camera.diameter(heads[:, 1]) * rng.uniform(0.92, 1.08, n)
    unit = np.clip(unit, 5.0, 15.0)

    def at(template: np.ndarray, scale_x=1.0, scale_y=1.0, dx=0.0, dy=0.0) -> np.ndarray:
        """The template [V, 2], in head diameters, at each head: int32 [n, V, 2]."""
        x = template[None, :, 0] * np.reshape(scale_x, (-1, 1)) + np.reshape(dx, (-1, 1))
        y = template[None, :, 1] * np.reshape(scale_y, (-1, 1)) + np.reshape(dy, (-1, 1))
        x, y = np.broadcast_arrays(x, y)
        return _fixed(heads[:, None] + np.stack([x, y], -1) * unit[:, None, None])

    def tone(colour: np.ndarray, gain) -> np.ndarray:
        return np.clip(colour * np.reshape(gain, (-1, 1)), 3, 252)

    light = rng.uniform(0.85, 1.12, n)
    skin = tone(_SKIN[rng.integers(0, len(_SKIN), n)] + rng.uniform(-10, 10, (n, 3)), light)
    hair = _HAIR[rng.choice(len(_HAIR), n, p=_HAIR_SHARE)] + rng.uniform(-8, 14, (n, 3))
    hair = tone(hair, style.hair_gain * light)
    cloth = rng.integers(0, len(_CLOTHES), n)
    if style.uniform >= 0:
        cloth = np.where(rng.random(n) < 0.7, style.uniform, cloth)
    top = tone(_CLOTHES[cloth] + rng.uniform(-22, 22, (n, 3)), style.clothes_gain * light)
    legs = _TROUSERS[rng.integers(0, len(_TROUSERS), n)] + rng.uniform(-12, 12, (n, 3))
    legs = tone(legs, light)
    hat = _CLOTHES[rng.integers(0, len(_CLOTHES), n)] + rng.uniform(-15, 15, (n, 3))
    hat = tone(hat, light)
    pack = tone(_CLOTHES[rng.integers(0, len(_CLOTHES), n)] + rng.uniform(-15, 15, (n, 3)), 0.8)

    has_hat = rng.random(n) < style.hats
    has_face = rng.random(n) < style.facing
    has_long_hair = (rng.random(n) < 0.3) & ~has_hat
    has_pack = ~has_face & (rng.random(n) < 0.2)
    bare_arms = rng.random(n) < 0.4
    crown = np.where(has_hat[:, None], hat, hair)

    shoulder = rng.uniform(0.85, 1.18, n)
    hip = camera.stature * rng.uniform(0.46, 0.54, n)
    foot = camera.stature * rng.uniform(0.95, 1.05, n)
    turn = rng.uniform(-0.14, 0.14, n)
    sun = style.sun

    step = rng.uniform(0.05, 0.4, n)
    leg = np.array([(-0.27, 0.0), (0.27, 0.0), (0.2, 1.0), (-0.2, 1.0)])
    left_leg = at(leg, 1.0, foot - hip, -0.3 - 0.3 * step, hip - 0.1)
    right_leg = at(leg, 1.0, (foot - hip) * (1 - 0.2 * step), 0.3 + 0.3 * step, hip - 0.1)
    arm = np.array([(-0.2, 0.0), (0.2, 0.0), (0.16, 1.0), (-0.16, 1.0)])
    reach = rng.uniform(0.55, 1.0, n) * (hip - 0.7)
    left_arm = at(arm, 1.0, reach, -0.98 * shoulder, 1.0)
    right_arm = at(arm, 1.0, reach, 0.98 * shoulder, 1.0)
    torso = at(_TORSO, shoulder, hip - 0.55, 0.0, 0.7)
    side = at(_SIDE * (1.0 if sun < 0 else -1.0, 1.0), shoulder, hip - 0.55, 0.0, 0.7)
    collar = at(_COLLAR, shoulder, 1.0)
    rucksack = at(
        np.array([(-0.5, 0.0), (0.5, 0.0), (0.56, 1.0), (-0.56, 1.0)]), 1.0, 1.3, turn, 1.0
    )
    long_hair = at(_LONG_HAIR)
    head = at(_HEAD)
    face = at(_FACE, 1.0, 1.0, turn)
    sheen = at(_SHEEN, 1.0, 1.0, 0.16 * sun)
    brim = at(_BRIM)
    # Shadows fall along the ground, away from the sun.
    shadow_end = np.array([(-0.6, 0.0), (0.6, 0.0)])
    slant, drop = -1.8 * sun, rng.uniform(-0.9, 0.5)
    shadow = np.concatenate(
        [
            at(shadow_end, 0.9, 1.0, 0.0, foot),
            at(shadow_end[::-1], 1.0, 1.0, slant * 2.2, foot + drop),
        ],
        1,
    )

    def rgb(colours: np.ndarray) -> list[tuple[int, int, int]]:
        return [tuple(row) for row in np.round(colours).astype(int).tolist()]

    top_rgb, side_rgb = rgb(top), rgb(tone(top, 0.72))
    arm_rgb = rgb(np.where(bare_arms[:, None], skin * 0.95, top * 0.84))
    leg_rgb, far_leg_rgb = rgb(legs), rgb(tone(legs, 0.75))
    collar_rgb, pack_rgb = rgb(tone(top, 0.42)), rgb(pack)
    crown_rgb, skin_rgb, hair_rgb = rgb(crown), rgb(skin), rgb(tone(hair, 0.9))
    sheen_rgb, brim_rgb = rgb(np.clip(crown * 1.18 + 14, 0, 252)), rgb(tone(crown, 0.7))

    figures = []
    for i in range(n):
        shapes = [
            _Shape(left_leg[i], leg_rgb[i]),
            _Shape(right_leg[i], far_leg_rgb[i]),
            _Shape(left_arm[i], arm_rgb[i]),
            _Shape(right_arm[i], arm_rgb[i]),
            _Shape(torso[i], top_rgb[i]),
            _Shape(side[i], side_rgb[i]),
        ]
        if has_pack[i]:
            shapes.append(_Shape(rucksack[i], pack_rgb[i]))
        shapes.append(_Shape(collar[i], collar_rgb[i]))
        if has_long_hair[i]:
            shapes.append(_Shape(long_hair[i], hair_rgb[i]))
        shapes.append(_Shape(head[i], crown_rgb[i], True))
        if has_face[i]:
            shapes.append(_Shape(face[i], skin_rgb[i], True))
        shapes.append(_Shape(sheen[i], sheen_rgb[i], True))
        if has_hat[i]:
            shapes.append(_Shape(brim[i], brim_rgb[i], True))
        x, y = heads[i].tolist()
        figures.append(_Figure(y, shapes, (x, y, float(unit[i])), shadow[i]))
    return figures


def _place_things(rng: np.random.Generator, camera: _Camera) -> list[_Figure]:
    """Trees, lamps, bollards and stalls: what stands on the ground and is not a person."""
    figures = []
    number = int(rng.choice([0, 1, 2, 4, 7], p=[0.25, 0.2, 0.25, 0.2, 0.1]))
    kinds = (_tree, _lamp, _bollards, _stall)
    for kind in rng.choice(len(kinds), number, p=[0.35, 0.25, 0.2, 0.2]):
        foot = rng.uniform(camera.back + 2, camera.height)
        # A thing as tall as the picture would hide too much close up.
        if kinds[kind] in (_tree, _stall):
            foot = rng.uniform(camera.back + 2, camera.back + 0.5 * (camera.height - camera.back))
        x = rng.uniform(0, camera.width)
        # People are ordered by their heads, things by the head of someone standing there.
        unit = float(camera.diameter(foot)) / (1 + camera.slope * camera.stature)
        figures.append(_Figure(foot - camera.stature * unit, kinds[kind](rng, x, foot, unit)))
    return figures


def _box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return _fixed(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]))


def _tree(rng: np.random.Generator, x: float, foot: float, unit: float) -> list[_Shape]:
    tall = unit * rng.uniform(7, 12)
    bark = np.array((86, 66, 50)) * rng.uniform(0.6, 1.3)
    shapes = [_Shape(_box(x - 0.3 * unit, foot - tall, x + 0.3 * unit, foot), rgb(bark))]
    leaf = np.array((70, 112, 52)) * rng.uniform(0.5, 1.5) + rng.uniform(-15, 25, 3)
    blobs = 45
    place = rng.standard_normal((blobs, 2)) * (1.7, 1.3)
    place = place[np.argsort(-place[:, 1], kind="stable")]
    size = rng.uniform(0.35, 1.1, blobs)
    for (dx, dy), radius, gain in zip(place, size, rng.uniform(0.5, 1.35, blobs), strict=True):
        blob = _ellipse(radius, radius * 0.8, dx, dy) * unit + (x, foot - tall)
        shapes.append(_Shape(_fixed(blob), rgb(leaf * (gain - 0.08 * dy))))
    return shapes


def _lamp(rng: np.random.Generator, x: float, foot: float, unit: float) -> list[_Shape]:
    tall = unit * rng.uniform(9, 16)
    iron = rgb(np.full(3, rng.uniform(20, 120)))
    bulb = rgb(np.array((250, 240, 205)) * rng.uniform(0.6, 1.0))
    globe = _ellipse(0.45, 0.45) * unit
    return [
        _Shape(_box(x - 0.13 * unit, foot - tall, x + 0.13 * unit, foot), iron),
        _Shape(_box(x - unit, foot - tall, x + unit, foot - tall + 0.2 * unit), iron),
        _Shape(_fixed(globe + (x - unit, foot - tall)), bulb),
        _Shape(_fixed(globe + (x + unit, foot - tall)), bulb),
    ]


def _bollards(rng: np.random.Generator, x: float, foot: float, unit: float) -> list[_Shape]:
    paint = np.full(3, rng.uniform(30, 230))
    gap = unit * rng.uniform(2, 4)
    shapes = []
    for i in range(int(rng.integers(2, 9))):
        left = x + i * gap
        shapes.append(
            _Shape(
                _box(left - 0.25 * unit, foot - 2.4 * unit, left + 0.25 * unit, foot),
                rgb(paint),
            )
        )
        shapes.append(
            _Shape(
                _box(left - 0.25 * unit, foot - 2.1 * unit, left + 0.25 * unit, foot - 1.7 * unit),
                rgb(255 - paint),
            )
        )
    return shapes


def _stall(rng: np.random.Generator, x: float, foot: float, unit: float) -> list[_Shape]:
    wide, tall = unit * rng.uniform(5, 10), unit * rng.uniform(7, 9)
    cloth = _CLOTHES[int(rng.integers(len(_CLOTHES)))] * rng.uniform(0.8, 1.1)
    shapes = [
        _Shape(_box(x, foot - tall * 0.7, x + wide, foot), rgb(cloth * 0.35)),
        _Shape(_box(x, foot - tall * 0.3, x + wide, foot), rgb(cloth * 0.6 + 30)),
    ]
    stripes = int(rng.integers(5, 12))
    for i in range(stripes):
        left = x - 0.5 * unit + i * (wide + unit) / stripes
        right = left + (wide + unit) / stripes
        shapes.append(
            _Shape(
                _box(left, foot - tall, right, foot - tall * 0.62),
                rgb(cloth) if i % 2 else (236, 232, 222),
            )
        )
    return shapes


# ---------------------------------------------------------------------------- backdrop


def _draw_backdrop(rng: np.random.Generator, camera: _Camera) -> np.ndarray:
    """Sky, buildings and ground without anything standing on it: uint8 [2H, 2W, 3]."""
    height, width = SUPER * camera.height, SUPER * camera.width
    out = np.empty((height, width, 3), np.uint8)
    back = int(SUPER * camera.back)
    _draw_ground(rng, camera, out, back)
    if back > 0:
        _draw_sky(rng, out[:back])
        _draw_buildings(rng, out[:back], camera)
        if rng.random() < 0.5:
            _draw_hedge(rng, out, back, SUPER * float(camera.diameter(camera.back)))
    return out


def _draw_sky(rng: np.random.Generator, out: np.ndarray) -> None:
    skies = (
        ((92, 142, 205), (196, 216, 236)),
        ((205, 208, 212), (228, 228, 226)),
        ((62, 62, 98), (232, 158, 110)),
        ((26, 30, 52), (62, 66, 92)),
        ((150, 165, 182), (246, 240, 224)),
    )
    high, low = (np.array(c, np.float32) for c in skies[int(rng.integers(len(skies)))])
    height, width = out.shape[:2]
    ramp = (np.arange(height, dtype=np.float32) / max(height - 1, 1))[:, None, None]
    cloud = blotches(rng, height, width, 48).astype(np.float32)[..., None] - 128
    sky = high + (low - high) * ramp + cloud * np.float32(rng.uniform(0.0, 0.35))
    out[:] = np.clip(sky, 0, 255)


def _draw_buildings(rng: np.random.Generator, out: np.ndarray, camera: _Camera) -> None:
    """A row of facades with windows, standing on the lower edge of `out` [h, w, 3]."""
    height, width = out.shape[:2]
    full = rng.random() < 0.45  # no sky between the roofs and the picture's edge
    contrast = rng.uniform(0.2, 0.7)
    left = -int(rng.integers(0, 60))
    while left < width:
        wide = int(rng.integers(50, 170))
        roof = 0 if full else int(height * rng.uniform(0.05, 0.75))
        x0, x1 = max(left, 0), min(left + wide, width)
        left += wide
        if x1 <= x0 or height - roof < 4:
            continue
        wall = np.clip(rng.uniform(45, 215) + rng.uniform(-28, 28, 3), 10, 245)
        cell_w, cell_h = int(rng.integers(16, 32)), int(rng.integers(22, 44))
        glass_w = int(cell_w * rng.uniform(0.4, 0.8))
        glass_h = int(cell_h * rng.uniform(0.4, 0.8))
        columns = np.arange(x1 - x0)
        rows = np.arange(height - roof)
        in_glass = ((rows % cell_h < glass_h) & (rows >= 3))[:, None]
        in_glass = in_glass & (columns % cell_w < glass_w)[None, :]
        panes = (len(rows) // cell_h + 1, len(columns) // cell_w + 1)
        dark = rng.random() < 0.7
        pane = np.where(rng.random(panes) < 0.2, 0.5, 1.0) * rng.uniform(0.6, 1.0, panes)
        target = (wall * 0.3 if dark else 255 - 0.3 * (255 - wall)) - wall
        table = np.clip(wall + target * contrast * pane[..., None], 0, 255).astype(np.uint8)
        glass = table[rows // cell_h][:, columns // cell_w]
        facade = np.where(in_glass[..., None], glass, wall.astype(np.uint8))
        facade[:2] = wall * 0.6
        out[roof:, x0:x1] = facade


def _draw_hedge(rng: np.random.Generator, out: np.ndarray, back: int, unit: float) -> None:
    """A line of foliage where the ground ends."""
    leaf = np.array((66, 104, 50)) * rng.uniform(0.5, 1.4) + rng.uniform(-12, 20, 3)
    start, stop = np.sort(rng.uniform(-0.2, 1.2, 2)) * out.shape[1]
    number = min(int((stop - start) / (0.4 * unit)), 160)
    x = rng.uniform(start, stop, number)
    y = back - rng.uniform(0, 2.2, number) * unit
    gain = rng.uniform(0.5, 1.3, number)
    blob = _ellipse(0.7, 0.6) * unit
    for i in range(number):
        corners = np.round((blob + (x[i], y[i])) * (1 << SHIFT)).astype(np.int32)
        cv2.fillConvexPoly(out, corners, rgb(leaf * gain[i]), cv2.LINE_8, SHIFT)


def _draw_ground(rng: np.random.Generator, camera: _Camera, out: np.ndarray, back: int) -> None:
    """Paving in perspective, below row `back`."""
    height, width = out.shape[:2]
    side, tile = 256, 32
    texture = _paving(rng, side, tile)
    row = (np.arange(back, height, dtype=np.float32) + 0.5) / SUPER - np.float32(camera.horizon)
    nearest = np.float32(camera.height - camera.horizon)
    # `tile` texels are `size` picture pixels at the lower edge.
    size = np.float32(rng.uniform(12, 34))
    scale = tile * nearest / size
    focal = np.float32(1.3 * camera.width / (camera.height - camera.back)) * nearest
    v = (scale * focal / row).astype(np.int32) % side
    column = (np.arange(width, dtype=np.float32) + 0.5) / SUPER
    # Shifted by whole textures, so that truncation rounds down everywhere.
    middle = np.float32(rng.uniform(0, camera.width))
    u = ((column - middle) * (scale / row)[:, None] + 64 * side).astype(np.int32)
    u &= side - 1
    u += v[:, None] * side
    tone = np.take(texture.ravel(), u)
    tone *= (row / nearest)[:, None]  # detail fades with distance
    stains = blotches(rng, len(row), width, 64).astype(np.float32)
    tone += (stains - 128) * np.float32(rng.uniform(0.05, 0.3))
    base = np.clip(rng.uniform(50, 200) + rng.uniform(-18, 18, 3), 20, 235)
    if rng.random() < 0.15:
        base = np.array((92, 122, 66)) * rng.uniform(0.6, 1.4)
    level = np.clip(tone + 128, 10, 255).astype(np.uint8)
    table = np.clip(np.arange(256)[:, None] / 128 * base, 0, 255).astype(np.uint8)
    for channel in range(3):
        out[back:, :, channel] = cv2.LUT(level, table[:, channel])


def _paving(rng: np.random.Generator, side: int, tile: int) -> np.ndarray:
    """A texture float32 [side, side] around 0, within 128, of tiles of `tile` x `tile` texels."""
    number = side // tile
    each = rng.uniform(-1, 1, (number, number)).astype(np.float32)
    each = np.repeat(np.repeat(each, tile, 0), tile, 1)
    x, y = np.arange(side)[None, :], np.arange(side)[:, None]
    kinds = ["plain", "slabs", "bricks", "stripes", "chequers", "cobbles", "gravel"]
    kind = rng.choice(kinds, p=[0.2, 0.2, 0.15, 0.12, 0.08, 0.08, 0.17])
    if kind in ("slabs", "bricks"):
        tone = 0.5 * each
        tone[::tile] = tone[1::tile] = tone[2::tile] = -1
        if kind == "slabs":
            tone[:, ::tile] = tone[:, 1::tile] = tone[:, 2::tile] = -1
        else:
            half = ((x + y // tile % 2 * (tile // 2)) % tile) < 3
            tone[half] = -1
    elif kind == "stripes":
        tone = np.where(x // tile % 4 == 0, 1.0, -0.2)
    elif kind == "chequers":
        tone = np.where((x // tile + y // tile) % 2 == 0, 0.8, -0.8) + 0.2 * each
    elif kind == "cobbles":
        radius = (x % tile - tile / 2) ** 2 + (y % tile - tile / 2) ** 2
        tone = np.where(radius < (0.45 * tile) ** 2, 0.3 + 0.5 * each, -0.7)
    elif kind == "gravel":
        tone = (blotches(rng, side, side, 4).astype(np.float32) - 128) / 150
    else:
        tone = np.zeros((1, 1))
    grain = rng.integers(0, 25, (side, side), dtype=np.uint8).astype(np.float32) - 12
    return grain + np.float32(rng.uniform(8, 45)) * tone.astype(np.float32)


# ---------------------------------------------------------------------------- painting


def _paint(plan: _Plan) -> tuple[np.ndarray, np.ndarray]:
    """Paints the plan back to front.

    Returns:
      Colours uint16 [2H, 2W, 3] in 0..255, and labels uint16 [2H, 2W]: k + 1 where the head of
      `plan.figures[k]` is what one sees, 0 elsewhere.
    """
    height, width = plan.backdrop.shape[:2]
    ground = plan.backdrop
    if plan.shadow_depth:
        shade = np.zeros((height, width), np.uint8)
        for figure in plan.figures:
            if figure.shadow is not None:
                cv2.fillConvexPoly(shade, figure.shadow, 255, cv2.LINE_8, SHIFT)
        shade[: int(SUPER * plan.camera.back)] = 0
        shade = cv2.blur(shade, (5, 5))
        depth = np.round(255 - np.arange(256) * plan.shadow_depth).astype(np.uint8)
        gain = cv2.LUT(shade, depth)
        ground = cv2.multiply(ground, cv2.merge([gain, gain, gain]), scale=1 / 255)
    # Colour and label are painted by the same call, so they cannot disagree.
    canvas = cv2.cvtColor(ground, cv2.COLOR_RGB2RGBA).astype(np.uint16)
    canvas[..., 3] = 0
    for number, figure in enumerate(plan.figures, start=1):
        for shape in figure.shapes:
            colour = (*shape.colour, number if shape.is_head else 0)
            cv2.fillConvexPoly(canvas, shape.vertices, colour, cv2.LINE_8, SHIFT)
    return canvas[..., :3], canvas[..., 3]


def _visible_heads(plan: _Plan, labels: np.ndarray) -> np.ndarray:
    """Head points float32 [N, 2] by the rule in `render_scene`."""
    seen = np.bincount(labels[labels > 0], minlength=len(plan.figures) + 1)
    points = []
    for number, figure in enumerate(plan.figures, start=1):
        if figure.head is None:
            continue
        x, y, unit = figure.head
        if not (0 <= x <= plan.camera.width - 1 and 0 <= y <= plan.camera.height - 1):
            continue
        area = np.pi * HEAD_HALF_WIDTH * HEAD_HALF_HEIGHT * (SUPER * unit) ** 2
        centre = labels[round(SUPER * y + (SUPER - 1) / 2), round(SUPER * x + (SUPER - 1) / 2)]
        if centre == number and seen[number] >= VISIBLE_SHARE * area:
            points.append((x, y))
    return np.array(points, np.float32).reshape(-1, 2)
