"""Pictures of density maps: over the photograph, with a colour bar and the count, or alone."""

import functools
import math
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

# Both are perceptually uniform: plasma shows on dark crowds from its low end on; inferno begins at
# black, as a map alone should.
OVERLAY_COLORMAP = "plasma"
MAP_COLORMAP = "inferno"

# Densities are shown as people per patch of this side: per pixel the numbers are too small to read.
PATCH_SIDE = 32
UNIT = f"people per {PATCH_SIDE}×{PATCH_SIDE} px"

_MAX_ALPHA = 0.85
_SATURATION = 0.35
_MIN_SIDE = 320
_PANEL = (18, 18, 20)
_TEXT = (245, 245, 245)
_QUIET = (176, 176, 182)


def overlay(
    picture: np.ndarray,
    density: np.ndarray,
    *,
    count: float | None,
    label: str = "",
    max_side: int | None = None,
    zones: Mapping[str, np.ndarray] | None = None,
    top: float | None = None,
) -> Image.Image:
    """The picture under a translucent heat map; below it the count and a colour bar.

    Where there are no people the picture stays clear; its colours are muted, so that those of the
    heat map stand out. The colour scale follows the square root of the density, because densities
    within one picture differ by orders of magnitude with the perspective. Pictures of less than
    320 pixels a side are enlarged without interpolation, so that the text has room.

    Args:
      picture: [H, W] or [H, W, C] uint8, grey (C = 1 or 2) or RGB (C = 3 or 4).
      density: [H, W] people per pixel.
      count: Count to write below the picture; None writes none.
      label: Further text, such as the picture's name; shortened where it does not fit.
      max_side: Longest side of the picture in the result; larger ones are reduced.
      zones: Polygons to outline, [N, 2] (x, y) in pixels of the picture, by what is written on
        each.
      top: Upper end of the colour scale, in people per 32x32 pixels; by default `scale_top` of
        the map. Frames of a video share one.

    Returns:
      An RGB image: the picture with a panel below it, as wide as the picture or wider.

    Raises:
      ValueError: The shapes do not fit together.
    """
    density = _drawable(density)
    photo = to_rgb(picture)
    height, width = density.shape
    if photo.size != (width, height):
        raise ValueError(
            f"picture is {photo.height}x{photo.width}, density map is {height}x{width}"
        )
    shape = fit(height, width, max_side)
    per_patch = mean_density(density, shape)
    per_patch *= PATCH_SIDE**2  # in place, here and below: pictures may be large
    if shape != (height, width):
        photo = photo.resize((shape[1], shape[0]), Image.Resampling.LANCZOS)
    photo = ImageEnhance.Color(photo).enhance(_SATURATION)
    top = scale_top(per_patch) if top is None else top
    clipped = bool(per_patch.max() > top)
    index = _quantize(np.sqrt(per_patch, out=per_patch), math.sqrt(top))
    heat = _paint(index, OVERLAY_COLORMAP).convert("RGB")
    mask = Image.fromarray(_alpha()[index])
    photo = Image.composite(heat, photo, mask)

    enlarge = math.ceil(_MIN_SIDE / max(photo.size))
    if max_side is not None:
        enlarge = max(1, min(enlarge, max_side // max(photo.size)))
    if enlarge > 1:
        photo = photo.resize(
            (photo.width * enlarge, photo.height * enlarge), Image.Resampling.NEAREST
        )
    if zones:
        factor = np.array(photo.size) / (width, height)
        _outline(photo, {text: points * factor for text, points in zones.items()})
    panel = _panel(photo.size, top, clipped, count, label)
    result = Image.new("RGB", (panel.width, photo.height + panel.height), _PANEL)
    result.paste(photo, ((panel.width - photo.width) // 2, 0))
    result.paste(panel, (0, photo.height))
    return result


def density_picture(density: np.ndarray, top: float | None = None) -> Image.Image:
    """The density map alone in colours, one pixel for each of the map.

    Args:
      density: [H, W] people per pixel.
      top: Density of the brightest colour, in people per 32x32 pixels; by default `scale_top` of
        the map.

    The scale is linear, so that maps of one scale compare by eye.

    Returns:
      An image of mode P; convert it to RGB to draw on it.
    """
    per_patch = _drawable(density)
    per_patch *= PATCH_SIDE**2
    index = _quantize(per_patch, scale_top(per_patch) if top is None else top)
    return _paint(index, MAP_COLORMAP)


def scale_top(per_patch: np.ndarray) -> float:
    """Upper end of a colour scale: 99.5 % of what is drawn lies below, rounded up; never zero.

    Args:
      per_patch: Densities in any unit and shape. The largest value does not count alone, so that
        a single peak does not leave everything else dark.
    """
    drawn = per_patch[per_patch > 1e-2 * per_patch.max(initial=0.0)]
    if drawn.size == 0:
        return 1.0
    top = float(np.quantile(drawn, 0.995))
    step = 10.0 ** math.floor(math.log10(top)) / 2
    return math.ceil(top / step - 1e-6) * step


def mean_density(density: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Reduces a density map to `shape` by area: exact sums, then per pixel of the original.

    Interpolation would sample the map and change its peaks and its sum at random.

    Args:
      density: [H, W] people per pixel.
      shape: (height, width) of the result.

    Returns:
      `shape` float32, people per pixel of the original; its mean is that of `density`.
    """
    if density.shape == tuple(shape):
        return density.astype(np.float32, copy=False)
    for axis, size in enumerate(shape):
        length = density.shape[axis]
        total = np.cumsum(np.moveaxis(density, axis, 0), axis=0, dtype=np.float64)
        total = np.concatenate([np.zeros_like(total[:1]), total])
        edge = np.arange(size + 1) * (length / size)
        low = np.minimum(edge.astype(np.int64), length - 1)
        part = (edge - low)[:, None]
        at_edge = total[low] * (1 - part) + total[low + 1] * part
        density = np.moveaxis(np.diff(at_edge, axis=0) * (size / length), 0, axis)
    return density.astype(np.float32)


def fit(height: int, width: int, max_side: int | None) -> tuple[int, int]:
    """(height, width) reduced so that the longer side is at most `max_side`; never below 1."""
    if max_side is None or max(height, width) <= max_side:
        return height, width
    factor = max_side / max(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def color_stops(num: int) -> list[str]:
    """`num` colours of `density_picture` from none to most, as "#rrggbb"."""
    index = np.linspace(0, 255, num).round().astype(int)
    return ["#%02x%02x%02x" % tuple(color) for color in _colors(MAP_COLORMAP)[index]]


def _drawable(density: np.ndarray) -> np.ndarray:
    """A copy without what cannot be drawn."""
    density = np.array(density, np.float32)
    if density.ndim != 2 or density.size == 0:
        raise ValueError(f"density must be [H, W], got shape {density.shape}")
    np.nan_to_num(density, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return np.maximum(density, 0.0, out=density)


def to_rgb(picture: np.ndarray) -> Image.Image:
    """An RGB image of a uint8 [H, W] or [H, W, C] array; an alpha channel is dropped.

    Raises:
      ValueError: Another type, shape or number of channels.
    """
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3):
        raise ValueError(
            f"picture must be uint8 [H, W] or [H, W, C], got {picture.dtype} {picture.shape}"
        )
    if picture.ndim == 3:
        channels = picture.shape[2]
        if channels not in (1, 2, 3, 4):
            raise ValueError(f"picture must have 1 to 4 channels, got {channels}")
        picture = picture[:, :, :3] if channels >= 3 else picture[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(picture)).convert("RGB")


@functools.cache
def _colors(colormap: str) -> np.ndarray:
    rgba = matplotlib.colormaps[colormap](np.arange(256))
    return (rgba[:, :3] * 255).round().astype(np.uint8)


@functools.cache
def _alpha() -> np.ndarray:
    # Zero stays exactly clear, and so, nearly, does the faint background that networks leave.
    x = np.arange(256) / 255
    return (np.minimum(1.6 * x * x / (x + 0.15), 1) * _MAX_ALPHA * 255).round().astype(np.uint8)


def _quantize(per_patch: np.ndarray, top: float) -> np.ndarray:
    """Indices of colours, 0 for none to 255 for top; overwrites per_patch."""
    per_patch /= top
    np.minimum(per_patch, 1.0, out=per_patch)
    per_patch *= 255
    return np.rint(per_patch, out=per_patch).astype(np.uint8)


def _paint(index: np.ndarray, colormap: str) -> Image.Image:
    image = Image.fromarray(index)
    image.putpalette(_colors(colormap).tobytes())
    return image


@functools.lru_cache(maxsize=32)
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # matplotlib carries this font, so it is there on every machine.
    weight = "bold" if bold else "normal"
    wanted = font_manager.FontProperties(family="DejaVu Sans", weight=weight)
    path = font_manager.findfont(wanted)
    return ImageFont.truetype(path, size)


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Cuts the middle out: names of pictures differ most at their ends."""
    text = "".join(c if c.isprintable() else " " for c in text)[:500]
    if font.getlength(text) <= width:
        return text
    for keep in range(len(text) - 1, 0, -1):
        short = text[: (keep + 1) // 2] + "…" + text[len(text) - keep // 2 :]
        if font.getlength(short) <= width:
            return short
    return ""


def _em(width: int, height: int) -> int:
    """Size of the text for a picture, in pixels."""
    return round(min(max(0.024 * math.sqrt(width * height), 13), 110))


def _outline(photo: Image.Image, zones: Mapping[str, np.ndarray]) -> None:
    """Draws polygons, and what belongs to each at its middle, where the picture is as wide."""
    draw = ImageDraw.Draw(photo)
    em = _em(*photo.size)
    font = _font(em, bold=True)
    thick = max(round(em / 8), 2)
    for points in zones.values():
        line = [tuple(point) for point in (*points, points[0], points[1])]
        draw.line(line, fill=_PANEL, width=2 * thick, joint="curve")
        draw.line(line, fill=_TEXT, width=thick, joint="curve")
    for text, points in zones.items():
        room = min(max(np.ptp(points[:, 0]), 14 * em), photo.width - 2 * em)
        text = _shorten(text, font, room)
        half = font.getlength(text) / 2 + thick
        x, y = (points.min(axis=0) + points.max(axis=0)) / 2
        x = min(max(x, half), max(photo.width - half, half))
        y = min(max(y, em), photo.height - em)
        draw.text(
            (x, y), text, font=font, fill=_TEXT, anchor="mm", stroke_width=thick, stroke_fill=_PANEL
        )


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _panel(
    size: tuple[int, int], top: float, clipped: bool, count: float | None, label: str
) -> Image.Image:
    """Panel below a picture of `size`: count and label on the left, colour bar on the right."""
    em = _em(*size)
    pad = round(0.9 * em)
    big, small = _font(round(1.7 * em), bold=True), _font(em)
    width = max(size[0], _MIN_SIDE, 22 * em)
    # Side by side where both fit, else one below the other.
    beside = width >= 34 * em
    bar_width = 16 * em if beside else width - 2 * pad
    text_width = width - 2 * pad - (bar_width + 2 * pad if beside else 0)

    lines = []
    if count is not None:
        shown = f"{count:,.1f}" if math.isfinite(count) else str(count)
        lines.append((_shorten(f"{shown} people", big, text_width), big, _TEXT, 2.1 * em))
    if label:
        lines.append((_shorten(label, small, text_width), small, _QUIET, 1.4 * em))
    text_height = sum(line[3] for line in lines)
    bar_height = 4.0 * em
    inner = max(text_height, bar_height) if beside else text_height + pad + bar_height
    if not lines:
        inner = bar_height
    panel = Image.new("RGB", (width, round(inner + 2 * pad)), _PANEL)
    draw = ImageDraw.Draw(panel)

    y = pad + ((inner - text_height) / 2 if beside else 0)
    for text, font, color, height in lines:
        draw.text((pad, y + height / 2), text, font=font, fill=color, anchor="lm")
        y += height

    left = width - pad - bar_width
    y = pad + (inner - bar_height) / 2 if beside else panel.height - pad - bar_height
    draw.text((left, y + 0.6 * em), UNIT, font=small, fill=_QUIET, anchor="lm")
    index = np.linspace(0, 255, bar_width).round().astype(np.uint8)
    index = np.repeat(index[None], round(1.0 * em), axis=0)
    # The bar shows the colours as they look over a mid-grey picture.
    grey = Image.new("RGB", (bar_width, len(index)), (128, 128, 128))
    heat = _paint(index, OVERLAY_COLORMAP).convert("RGB")
    bar = Image.composite(heat, grey, Image.fromarray(_alpha()[index]))
    panel.paste(bar, (left, round(y + 1.4 * em)))
    ends = _number(top)
    for at, text, anchor in (
        (left, "0", "lm"),
        (left + bar_width / 2, _number(top / 4), "mm"),
        (left + bar_width, f"≥ {ends}" if clipped else ends, "rm"),
    ):
        draw.text((at, y + 3.2 * em), text, font=small, fill=_TEXT, anchor=anchor)
    return panel
