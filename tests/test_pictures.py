"""Decoding of pictures of all kinds."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from cmtl_jax import pictures
from cmtl_jax.errors import UserError


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def smooth(height=48, width=64) -> np.ndarray:
    """uint8 [H, W, 3] without sharp edges, all three channels different."""
    y, x = np.mgrid[:height, :width]
    channels = [x * 255 // width, y * 255 // height, (x + y) * 255 // (height + width)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


def test_rgb_and_grey():
    rgb = smooth()
    data = encoded(Image.fromarray(rgb))
    np.testing.assert_array_equal(pictures.decode(data, "a", 3), rgb)
    luma = rgb @ [0.299, 0.587, 0.114]
    grey = pictures.decode(data, "a", 1)
    assert grey.shape == (48, 64, 1) and grey.dtype == np.uint8
    assert np.abs(grey[..., 0] - luma).max() <= 1
    repeated = pictures.decode(encoded(Image.fromarray(grey[..., 0])), "a", 3)
    np.testing.assert_array_equal(repeated, np.repeat(grey, 3, axis=-1))


def test_grey_of_a_jpeg_is_its_luma():
    data = encoded(Image.fromarray(smooth()), "JPEG", quality=90)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(pictures.decode(data, "a")[..., 0], expected)


def test_transparency_lies_over_white():
    rgba = np.dstack([smooth(), np.full((48, 64), 255, np.uint8)])
    rgba[:10, :, 3] = 0
    found = pictures.decode(encoded(Image.fromarray(rgba)), "a", 3)
    assert (found[:10] == 255).all()
    np.testing.assert_array_equal(found[10:], rgba[10:, :, :3])
    grey_alpha = Image.fromarray(rgba[..., [0, 3]], "LA")
    found = pictures.decode(encoded(grey_alpha), "a", 1)
    assert (found[:10] == 255).all()
    np.testing.assert_array_equal(found[10:, :, 0], rgba[10:, :, 0])


def test_palette_with_transparent_colour():
    picture = Image.fromarray((np.arange(48 * 64).reshape(48, 64) % 2).astype(np.uint8), "P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    for kind in ("PNG", "GIF"):
        found = pictures.decode(encoded(picture, kind, transparency=0), "a", 3)
        assert (found[0, 0] == 255).all()
        np.testing.assert_array_equal(found[0, 1], [200, 100, 50])
    opaque = pictures.decode(encoded(picture), "a", 3)
    np.testing.assert_array_equal(opaque[0, :2], [[10, 20, 30], [200, 100, 50]])


def test_cmyk():
    rgb = smooth()
    data = encoded(Image.fromarray(rgb).convert("CMYK"), "JPEG", quality=95)
    found = pictures.decode(data, "a", 3).astype(int)
    assert np.abs(found - rgb).max() <= 12
    assert not pictures.plain(data)


def test_16_bit():
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    found = pictures.decode(encoded(Image.fromarray(values)), "a")
    np.testing.assert_array_equal(found[0, :, 0], [0, 1, 128, 255])
    ok, rgb = cv2.imencode(".png", np.full((2, 2, 3), 65535, np.uint16))
    assert ok and (pictures.decode(rgb.tobytes(), "a", 3) == 255).all()
    assert not pictures.plain(rgb.tobytes())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3])
def test_exif_orientation(orientation, channels):
    picture = Image.fromarray(smooth())
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture, "JPEG", exif=exif, quality=95)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    expected = np.asarray(expected.convert("RGB" if channels == 3 else "L")).astype(int)
    found = pictures.decode(data, "a", channels)
    assert found.shape[:2] == expected.shape[:2] == pictures.size(data)
    # Grey straight from the file differs by rounding from grey by way of RGB.
    assert np.abs(found.squeeze() - expected).max() <= (0 if channels == 3 else 2)
    assert pictures.plain(data) == (orientation == 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated(tmp_path, kind):
    data = encoded(Image.fromarray(smooth()), kind)
    path = tmp_path / "broken.jpg"
    for length in (0, 1, 20, len(data) // 2):
        path.write_bytes(data[:length])
        for channels in (1, 3):
            with pytest.raises(UserError, match="broken.jpg is truncated or not a picture") as info:
                pictures.read(path, channels)
            assert "\n" not in str(info.value)


def test_not_a_picture_and_not_there(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(UserError, match="text.png is truncated or not a picture"):
        pictures.read(tmp_path / "text.png")
    for function in (pictures.read, pictures.size):
        with pytest.raises(UserError, match="none.png"):
            function(tmp_path / "none.png")
    assert not pictures.plain(b"hello")


def test_formats_that_start_programs_are_not_opened(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (8, 8)).save(path, "EPS")
    with pytest.raises(UserError, match="photo.jpg is truncated or not a picture .unknown format"):
        pictures.read(path, 1)


def test_bombs_are_refused_by_their_header():
    with pytest.raises(UserError, match="100000 x 60000"):
        pictures.decode(png_header(100_000, 60_000), "bomb.png")
    data = encoded(Image.fromarray(smooth(48, 64)))
    with pytest.raises(UserError, match="64 x 48 pixels, more than the limit of 3071"):
        pictures.decode(data, "a", max_pixels=48 * 64 - 1)
    pictures.decode(data, "a", max_pixels=48 * 64)
    assert pictures.size(png_header(100_000, 60_000)) == (60_000, 100_000)


def test_pillows_own_limit_is_left_alone():
    before = Image.MAX_IMAGE_PIXELS
    pictures.size(encoded(Image.fromarray(smooth())))
    assert Image.MAX_IMAGE_PIXELS == before and before is not None


def test_plain():
    rgb = Image.fromarray(smooth())
    assert pictures.plain(encoded(rgb)) and pictures.plain(encoded(rgb, "JPEG"))
    assert pictures.plain(encoded(rgb.convert("L"))) and pictures.plain(
        encoded(rgb.convert("L"), "JPEG")
    )
    assert not pictures.plain(encoded(rgb, "BMP"))
    assert not pictures.plain(encoded(rgb.convert("P")))
    assert not pictures.plain(encoded(rgb.convert("RGBA")))
    assert not pictures.plain(encoded(rgb, transparency=(1, 2, 3)))


@pytest.mark.parametrize("channels", [1, 3])
def test_encode_png_loses_nothing(channels):
    pixels = smooth()[..., :channels]
    data = pictures.encode_png(pixels)
    np.testing.assert_array_equal(pictures.decode(data, "a", channels), pixels)
    assert pictures.plain(data)


def test_channels_of_pixels():
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (5, 7, 3), np.uint8)
    grey = pictures.with_channels(colours, 1)
    expected = (colours * np.array([0.299, 0.587, 0.114])).sum(axis=2, keepdims=True)
    assert grey.dtype == np.uint8 and np.abs(grey - expected).max() <= 1
    assert pictures.with_channels(colours, 3) is colours
    assert (pictures.with_channels(grey, 3) == grey).all()
