"""A data set in one small file, for a machine that it has to be carried to."""

import io
import pathlib
import zipfile
from collections.abc import Callable, Iterable

from PIL import Image
from tqdm import tqdm

from cmtl_jax import pictures
from cmtl_jax.datasets import prepare
from cmtl_jax.datasets.crowd_builder import Item
from cmtl_jax.errors import UserError

_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip file knows; the same data gives the same bytes


def grey(data: bytes, name: str) -> bytes:
    """A JPEG or PNG picture without its colours, at its size; other formats unchanged.

    A JPEG file keeps its luma and the table that was quantised with, so that its grey levels stay
    what they are but for rounding. Ours.

    Args:
      data: the file's bytes.
      name: the file's name, for messages.

    Returns:
      The bytes of a file of the same format, or those given where that would not be smaller.

    Raises:
      UserError: truncated or not a picture.
    """
    pixels = pictures.decode(data, name)
    picture = Image.open(io.BytesIO(data), formats=pictures.FORMATS)
    if picture.format == "PNG":
        packed = pictures.encode_png(pixels)
    elif picture.format == "JPEG" and picture.mode in ("L", "RGB"):
        buffer = io.BytesIO()
        exif = {"exif": picture.info["exif"]} if "exif" in picture.info else {}
        table = picture.quantization[0]
        picture.draft("L", None)
        picture.convert("L").save(buffer, "JPEG", qtables=[table], optimize=True, **exif)
        packed = buffer.getvalue()
    else:
        return data
    return packed if len(packed) < len(data) else data


def pack(
    name: str,
    out: str | pathlib.Path,
    raw_dir: str | pathlib.Path | None = None,
    options: dict | None = None,
    splits: Iterable[str] | None = None,
    channels: int = 1,
) -> pathlib.Path:
    """Writes the pictures and annotations of a raw folder into a zip file.

    Unpacked, the file is a raw folder again.

    Args:
      name: of the data set, as for `prepare.prepare`.
      out: the zip file; one that is there is replaced once the new one is whole.
      raw_dir: the raw folder.
      options: as for `prepare.prepare`.
      splits: those wanted; all if None.
      channels: 1: pictures without their colours; 3: as they are.

    Returns:
      `out`.

    Raises:
      UserError: data missing or damaged, no such split, or a data set without files.
    """
    out = pathlib.Path(out)
    raw_dir = None if raw_dir is None else pathlib.Path(raw_dir).expanduser()
    found = prepare.find(name, raw_dir, options)
    wanted = list(found.splits) if splits is None else list(splits)
    for split in wanted:
        if split not in found.splits:
            raise UserError(f"{name} has the splits {', '.join(found.splits)}, not {split!r}")
    items = [item for split in wanted for item in found.splits[split]]
    if not all(item.files for item in items):
        raise UserError(f"{name} is computed, not read from files; there is nothing to pack")
    partial = out.with_name(out.name + ".partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _write(partial, items, raw_dir.resolve(), grey if channels == 1 else _checked)
        partial.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error}); choose another folder") from error
    finally:
        partial.unlink(missing_ok=True)
    return out


def _checked(data: bytes, name: str) -> bytes:
    """A picture's bytes as they are, once it is known that they can be read."""
    pictures.decode(data, name)
    return data


def _write(
    path: pathlib.Path,
    items: list[Item],
    root: pathlib.Path,
    convert: Callable[[bytes, str], bytes],
) -> None:
    written = set()
    with zipfile.ZipFile(path, "w") as archive:
        for item in tqdm(items, desc="packing", unit="picture"):
            for i, file in enumerate(item.files):
                if file in written:  # an annotation file of many pictures
                    continue
                written.add(file)
                data = pictures.read_bytes(file) if i == 0 else file.read_bytes()
                entry = zipfile.ZipInfo(file.resolve().relative_to(root).as_posix(), _DATE)
                entry.external_attr = 0o644 << 16
                kind = zipfile.ZIP_STORED if i == 0 else zipfile.ZIP_DEFLATED
                archive.writestr(entry, convert(data, str(file)) if i == 0 else data, kind)
