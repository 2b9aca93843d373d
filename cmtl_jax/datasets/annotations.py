"""Readers of head point annotations; all give float32 [N, 2] (x, y), pixels, 0-based."""

import csv
import io
import json
import math
import pathlib

import numpy as np
import scipy.io

from cmtl_jax.errors import UserError

SUFFIXES = (".mat", ".csv", ".json")


def _points(values, name: str, finite: bool = True) -> np.ndarray:
    """Checks and converts coordinates of any shape that means N pairs."""
    try:
        points = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{name}: the points are not numbers in two columns ({error}); correct the file"
        ) from error
    if points.size == 0:
        return np.zeros((0, 2), np.float32)
    if points.ndim == 1 and points.size == 2:  # MATLAB squeezes a single point
        points = points.reshape(1, 2)
    if points.ndim != 2 or points.shape[1] != 2:
        raise UserError(
            f"{name}: points have shape {tuple(points.shape)}, expected two columns x, y; "
            "correct the file"
        )
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if bad.size and finite:
        raise UserError(
            f"{name}: point {bad[0] + 1} is not finite ({bad.size} such points); correct or "
            "remove them"
        )
    return points.astype(np.float32)


def _load_mat(path: pathlib.Path) -> dict:
    try:
        return scipy.io.loadmat(path)
    except NotImplementedError as error:
        raise UserError(
            f"{path} is a MATLAB 7.3 file, which is not read; save it in MATLAB with -v7"
        ) from error
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; add the annotation file") from error
    except Exception as error:  # SciPy raises many kinds for a damaged file
        raise UserError(
            f"{path} is not a readable .mat file ({error}); replace or remove it"
        ) from error


def _one_based(points, name: str, finite: bool) -> np.ndarray:
    """MATLAB's first pixel is 1, ours 0; subtracted in float64 so that no floor changes."""
    try:
        points = np.asarray(points, np.float64) - 1
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: the points are not numbers ({error})") from error
    return _points(points, name, finite)


def _no_points(path: pathlib.Path, mat: dict, expected: str) -> UserError:
    found = ", ".join(sorted(key for key in mat if not key.startswith("__"))) or "nothing"
    return UserError(f"{path} holds no head points: expected {expected}, found {found}")


def read_mat(
    path: str | pathlib.Path, keys=("image_info", "annPoints", "points"), finite: bool = True
) -> np.ndarray:
    """Head points of a MATLAB file, 1-based there and 0-based here.

    Args:
      path: the .mat file.
      keys: names looked for, in this order: `image_info` (struct of ShanghaiTech), or a plain
        N x 2 array.
      finite: refuse points that are not.

    Returns:
      float32 [N, 2] (x, y), pixels, 0-based.

    Raises:
      UserError: unreadable, none of the keys, NaN or infinite, not two columns.
    """
    path = pathlib.Path(path)
    mat = _load_mat(path)
    for key in keys:
        if key not in mat:
            continue
        values = mat[key]
        if key == "image_info":
            try:
                values = values[0, 0][0, 0][0]
            except (IndexError, TypeError) as error:
                raise UserError(
                    f"{path}: image_info holds no location; replace or remove the file"
                ) from error
        return _one_based(values, str(path), finite)
    raise _no_points(path, mat, " or ".join(keys))


def read_shanghaitech(path: str | pathlib.Path) -> np.ndarray:
    """Head points of a ShanghaiTech `GT_IMG_n.mat`; see `read_mat`."""
    return read_mat(path, ("image_info",))


def read_ucf_cc_50(path: str | pathlib.Path) -> np.ndarray:
    """Head points of a UCF_CC_50 `n_ann.mat`; see `read_mat`."""
    return read_mat(path, ("annPoints",))


def read_text(path: pathlib.Path) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
      UserError: unreadable or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); replace or remove it") from error


def _csv_rows(path: pathlib.Path, columns: tuple[str, ...]) -> list[tuple[int, list[str]]]:
    """Rows (line number, cells) without the header; checks the number of columns."""
    rows = []
    for cells in (reader := csv.reader(io.StringIO(read_text(path)), skipinitialspace=True)):
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        if not rows and [cell.lower() for cell in cells] == list(columns):
            continue
        if not rows and sorted(cell.lower() for cell in cells) == sorted(columns):
            raise UserError(
                f"{path}: the header is {','.join(cells)}, expected {','.join(columns)}; "
                "reorder the columns"
            )
        if len(cells) != len(columns):
            raise UserError(
                f"{path}, line {reader.line_num}: {len(cells)} columns, expected "
                f"{','.join(columns)}; correct the line"
            )
        rows.append((reader.line_num, cells))
    return rows


def _numbers(path: pathlib.Path, line: int, cells: list[str]) -> tuple[float, float]:
    try:
        x, y = (float(cell) for cell in cells)
    except ValueError:
        raise UserError(
            f"{path}, line {line}: {','.join(cells)} is not a point x,y; correct the line"
        ) from None
    if not (math.isfinite(x) and math.isfinite(y)):
        raise UserError(f"{path}, line {line}: the point is not finite; correct or remove it")
    return x, y


def read_csv(path: str | pathlib.Path) -> np.ndarray:
    """Head points of a CSV file with the columns x,y, with or without that header.

    An empty file, or one with a header alone, is a picture without people.

    Returns:
      float32 [N, 2] (x, y), pixels, 0-based as in the file.

    Raises:
      UserError: unreadable, not two columns, not a finite number.
    """
    path = pathlib.Path(path)
    rows = _csv_rows(path, ("x", "y"))
    return _points([_numbers(path, line, cells) for line, cells in rows], str(path))


def read_csv_table(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Head points of many pictures: rows file,x,y; a row `file,,` is a picture without people.

    Returns:
      {file as written: float32 [N, 2] (x, y), pixels, 0-based}.

    Raises:
      UserError: as `read_csv`.
    """
    path = pathlib.Path(path)
    table: dict[str, list] = {}
    for line, (file, *cells) in _csv_rows(path, ("file", "x", "y")):
        points = table.setdefault(file, [])
        if any(cells):
            points.append(_numbers(path, line, cells))
    return {file: _points(points, f"{path} ({file})") for file, points in table.items()}


def load_json(path: pathlib.Path):
    """What a JSON file holds; an empty file is an empty list.

    Raises:
      UserError: unreadable or not JSON.
    """
    text = read_text(path)
    if not text.strip():
        return []
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); correct the file") from error


def _json_points(value, name: str) -> np.ndarray:
    if isinstance(value, dict):
        if "points" not in value:
            found = ", ".join(sorted(map(str, value))) or "nothing"
            raise UserError(
                f'{name} holds no head points: expected the key "points", found {found}'
            )
        value = value["points"]
    if not isinstance(value, list):
        raise UserError(f"{name}: expected a list of points [[x, y], ...]; correct the file")
    if any(isinstance(point, dict) for point in value):
        try:
            value = [(point["x"], point["y"]) for point in value]
        except (KeyError, TypeError) as error:
            raise UserError(f'{name}: each point needs "x" and "y"; correct the file') from error
    return _points(value, name)


def read_json(path: str | pathlib.Path) -> np.ndarray:
    """Head points of a JSON file: [[x, y], ...], {"points": ...} or [{"x": .., "y": ..}, ...].

    Returns:
      float32 [N, 2] (x, y), pixels, 0-based as in the file.

    Raises:
      UserError: unreadable, no points, NaN or infinite, not two columns.
    """
    path = pathlib.Path(path)
    return _json_points(load_json(path), str(path))


def read_json_table(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Head points of many pictures: {file: points as in `read_json`}.

    Returns:
      {file as written: float32 [N, 2] (x, y), pixels, 0-based}.

    Raises:
      UserError: as `read_json`.
    """
    path = pathlib.Path(path)
    table = load_json(path) or {}
    if not isinstance(table, dict):
        raise UserError(f"{path}: expected {{file: [[x, y], ...]}}; correct the file")
    return {file: _json_points(value, f"{path} ({file})") for file, value in table.items()}


def read(path: str | pathlib.Path) -> np.ndarray:
    """Head points of a .mat, .csv or .json file, by its suffix.

    Returns:
      float32 [N, 2] (x, y), pixels, 0-based.

    Raises:
      UserError: another suffix, or as the reader of the suffix.
    """
    readers = {".mat": read_mat, ".csv": read_csv, ".json": read_json}
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in readers:
        raise UserError(f"{path}: annotations are read from {', '.join(SUFFIXES)} files")
    return readers[suffix](path)


def check_points(points: np.ndarray, height: int, width: int, name: str) -> int:
    """Counts the points outside the picture, and refuses annotations with x and y swapped.

    Args:
      points: [N, 2] head points (x, y), pixels, 0-based.
      height: of the picture, pixels.
      width: of the picture, pixels.
      name: of the annotation, for the message.

    Returns:
      The number of points outside.

    Raises:
      UserError: at least 3 points and a tenth of all lie outside, none after swapping x and y.
    """
    points = np.asarray(points, np.float64).reshape(-1, 2)

    def outside(x, y):
        return int(((x < 0) | (x >= width) | (y < 0) | (y >= height)).sum())

    found = outside(points[:, 0], points[:, 1])
    if found >= max(3, 0.1 * len(points)) and outside(points[:, 1], points[:, 0]) == 0:
        raise UserError(
            f"{name}: x and y seem swapped: {found} of {len(points)} points lie outside the "
            f"picture of width {width} and height {height}, none with x and y exchanged; "
            "write x first"
        )
    return found
