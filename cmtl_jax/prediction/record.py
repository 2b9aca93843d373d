"""What is written about one counted picture or frame: as text, as JSON, as a row of a table."""

import dataclasses
import json

from cmtl_jax.escape import printable, table_cell

FORMATS = ("text", "jsonl", "csv")

_SPECIAL = frozenset(',;"\r\n\t')


@dataclasses.dataclass(frozen=True)
class Record:
    """The count of a picture or frame.

    Attributes:
        path: of the picture or video.
        count: people.
        zones: people in each zone.
        frame: its number in the video; None for a picture.
        seconds: since the start of the video.
        time: when a camera took it, UTC.
        smoothed: count, smoothed over time; None where that is not asked for.
        smoothed_zones: likewise for the zones.
        scale: of the sides before counting; None where nothing is resized.
        size: height and width that were counted, where that is so.
    """

    path: str
    count: float
    zones: dict[str, float] = dataclasses.field(default_factory=dict)
    frame: int | None = None
    seconds: float | None = None
    time: str | None = None
    smoothed: float | None = None
    smoothed_zones: dict[str, float] = dataclasses.field(default_factory=dict)
    scale: float | None = None
    size: tuple[int, int] | None = None

    def text(self) -> str:
        """`PATH<TAB>COUNT`; for a frame `PATH#t=SECONDS`; then `<TAB>NAME=COUNT` for each zone.

        Smoothed counts, where there are, stand in place of those of the frame alone.
        """
        where = printable(self.path) + ("" if self.frame is None else f"#t={self.seconds:.3f}")
        count = self.count if self.smoothed is None else self.smoothed
        zones = self.smoothed_zones or self.zones
        return "\t".join([where, f"{count:.1f}", *(f"{n}={c:.1f}" for n, c in zones.items())])

    def json(self, **more) -> str:
        """A JSON object on one line: `path`, `count`, and what else there is to say.

        Args:
            **more: further keys.
        """
        content: dict[str, object] = {"path": self.path, "count": round(self.count, 3)}
        if self.zones:
            content["zones"] = _rounded(self.zones)
        if self.frame is not None:
            content |= {"frame": self.frame, "seconds": round(self.seconds, 3)}
        if self.time is not None:
            content["time"] = self.time
        if self.smoothed is not None:
            content["smoothed"] = round(self.smoothed, 3)
        if self.smoothed_zones:
            content["smoothed_zones"] = _rounded(self.smoothed_zones)
        if self.scale is not None:
            height, width = self.size
            content |= {"scale": self.scale, "counted_width": width, "counted_height": height}
        return json.dumps(content | more)


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of a table of records.

    Attributes:
        zones: names of the zones.
        video: whether there are frames of videos.
        smooth: whether their counts are smoothed.
        resize: whether pictures are resized before counting.
    """

    zones: tuple[str, ...] = ()
    video: bool = False
    smooth: bool = False
    resize: bool = False

    def header(self) -> str:
        """The first line of a CSV file."""
        return _line(self.names())

    def row(self, record: Record) -> str:
        """The line of a record."""
        return _line(self.cells(record))

    def names(self) -> list[str]:
        """`path` and `count` first, always."""
        names = ["path", "count", *(f"zone:{name}" for name in self.zones)]
        if self.video:
            names += ["frame", "seconds", "time"]
        if self.smooth:
            names += ["smoothed", *(f"smoothed:{name}" for name in self.zones)]
        if self.resize:
            names += ["scale", "counted_width", "counted_height"]
        return names

    def cells(self, record: Record) -> list[str]:
        """The cells of a record; what it does not have is empty."""
        cells = [table_cell(record.path), _number(record.count)]
        cells += [_number(record.zones.get(name)) for name in self.zones]
        if self.video:
            frame = "" if record.frame is None else str(record.frame)
            cells += [frame, _number(record.seconds), record.time or ""]
        if self.smooth:
            cells.append(_number(record.smoothed))
            cells += [_number(record.smoothed_zones.get(name)) for name in self.zones]
        if self.resize:
            height, width = ("", "") if record.size is None else map(str, record.size)
            cells += ["" if record.scale is None else f"{record.scale:.6g}", width, height]
        return cells


def _line(cells: list[str]) -> str:
    """Quotes cells with a semicolon, too, which separates cells in some languages' spreadsheets."""
    return ",".join(
        '"' + cell.replace('"', '""') + '"' if _SPECIAL.intersection(cell) else cell
        for cell in cells
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _rounded(counts: dict[str, float]) -> dict[str, float]:
    return {name: round(count, 3) for name, count in counts.items()}
