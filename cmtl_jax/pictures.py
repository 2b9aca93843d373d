"""Pictures of any common kind to uint8 arrays."""

import contextlib
import io
import pathlib
import threading

import numpy as np
from PIL import Image

from cmtl_jax.errors import UserError

MAX_PIXELS = 200_000_000
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
# What Pillow may take a file for, whatever its name: its other formats are rare, and one of them
# (EPS) starts a program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
# Shares of red, green and blue in a grey level (ITU-R BT.601), as Pillow converts and JPEG stores.
LUMA = (0.299, 0.587, 0.114)

_ORIENTATION = 0x0112  # EXIF tag
_BIT_DEPTH = 24  # offset in the header of a PNG file
_pillow_limit = threading.Lock()


def _unreadable(name: str, reason) -> UserError:
    reason = " ".join(str(reason).split()) or type(reason).__name__
    return UserError(f"{name} is truncated or not a picture ({reason}); replace or remove it")


@contextlib.contextmanager
def _errors(name: str):
    """Whatever Pillow raises on a damaged file becomes one line for people."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise _unreadable(name, "unknown format") from error
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise _unreadable(name, error) from error


def _open(file, name: str, max_pixels: int | None = None) -> Image.Image:
    """Reads the header alone; refuses pictures of more than `max_pixels` pixels."""
    # Pillow has a limit of its own, lower than ours and without the sides in its message.
    with _errors(name), _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            picture = Image.open(file, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    width, height = picture.size
    if max_pixels is not None and width * height > max_pixels:
        raise UserError(
            f"{name} declares {width} x {height} pixels, more than the limit of {max_pixels}; "
            "make it smaller or raise the limit (--max-pixels of the counting command)"
        )
    return picture


def _orientation(picture: Image.Image) -> int:
    """EXIF orientation, 1 (upright) where it is missing or unreadable."""
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
        return value if value in range(1, 9) else 1
    except Exception:  # a damaged EXIF block does not make the pixels unusable
        return 1


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    if orientation == 1:
        return picture
    method = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }[orientation]
    return picture.transpose(method)


def _to_8_bit(picture: Image.Image, name: str) -> Image.Image:
    """Grey pictures of 16 bit scaled to 8; others as they are."""
    if picture.mode == "F":
        raise UserError(f"{name} has floating-point pixels; save it with 8 bit per channel")
    if not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture).astype(np.int64)
    return Image.fromarray(((np.clip(values, 0, 65535) + 128) // 257).astype(np.uint8))


def _flatten(picture: Image.Image) -> Image.Image:
    """Transparent pixels over white; others as they are."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def decode(data: bytes, name: str, channels: int = 1, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes an encoded picture.

    Understands grey, RGB, transparent (over white), CMYK, palette and 16-bit pictures (scaled
    to 8 bit) in the formats FORMATS, and turns them as their EXIF orientation says.
    Of an animation it gives the first frame.

    Args:
      data: the file's bytes.
      name: the file's name, for messages.
      channels: 1 for grey (the luma a JPEG file stores, undisturbed), 3 for RGB.
      max_pixels: pictures that declare more are refused before they are decoded.

    Returns:
      uint8 [H, W, channels].

    Raises:
      UserError: truncated, not a picture, or too large.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, not {channels}")
    picture = _open(io.BytesIO(data), name, max_pixels)
    with _errors(name):
        if channels == 1 and picture.format in ("JPEG", "MPO"):
            picture.draft("L", None)
    return from_pil(picture, name, channels)


def from_pil(picture: Image.Image, name: str, channels: int = 1) -> np.ndarray:
    """Pixels of an opened picture, converted as `decode` does: uint8 [H, W, channels].

    Raises:
      UserError: truncated or not a picture after all.
    """
    with _errors(name):
        orientation = _orientation(picture)
        picture.load()
        picture = _flatten(_to_8_bit(picture, name))
        picture = picture.convert("L" if channels == 1 else "RGB")
        pixels = np.asarray(_upright(picture, orientation), np.uint8)
    return np.ascontiguousarray(pixels).reshape(*pixels.shape[:2], channels)


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Pixels uint8 [H, W, C] in grey (1, as Pillow converts colours) or in RGB (3)."""
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return pixels.repeat(3, axis=2)
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def read_bytes(path: str | pathlib.Path) -> bytes:
    """The bytes of a picture file.

    Raises:
      UserError: missing or unreadable.
    """
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}); check the path"
        ) from error


def read(path: str | pathlib.Path, channels: int = 1, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads a picture file; see `decode`.

    Returns:
      uint8 [H, W, channels].

    Raises:
      UserError: missing, unreadable, truncated, not a picture, or too large.
    """
    return decode(read_bytes(path), str(path), channels, max_pixels)


def size(source: str | pathlib.Path | bytes, name: str | None = None) -> tuple[int, int]:
    """The sides of a picture from its header alone, turned as its EXIF orientation says.

    Args:
      source: a path or the file's bytes.
      name: for messages, where `source` is bytes.

    Returns:
      (height, width) in pixels.

    Raises:
      UserError: missing or not a picture.
    """
    if isinstance(source, bytes):
        file, name = io.BytesIO(source), name or "the picture"
    else:
        file, name = pathlib.Path(source), name or str(source)
        if not file.is_file():
            raise UserError(f"{file} does not exist; check the path")
    with _open(file, name) as picture:
        width, height = picture.size
        return (width, height) if _orientation(picture) >= 5 else (height, width)


def plain(data: bytes) -> bool:
    """Whether any decoder gives the same upright 8-bit grey or RGB pixels for these bytes.

    True for JPEG and PNG files of 8 bit, grey or RGB, without transparency and EXIF rotation.
    """
    try:
        with _open(io.BytesIO(data), "the picture") as picture:
            if picture.mode not in ("L", "RGB") or _orientation(picture) != 1:
                return False
            if picture.format == "PNG":
                return data[_BIT_DEPTH] == 8 and "transparency" not in picture.info
            return picture.format in ("JPEG", "MPO")
    except UserError:
        return False


def encode_png(pixels: np.ndarray) -> bytes:
    """Encodes uint8 [H, W, 1] or [H, W, 3] (RGB) without loss."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()
