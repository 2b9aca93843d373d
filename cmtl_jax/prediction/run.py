"""One call of the counting command: from what is to be counted to lines and files."""

import contextlib
import dataclasses
import itertools
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from cmtl_jax import console, head_spacing, trained_model
from cmtl_jax.errors import UserError
from cmtl_jax.escape import printable
from cmtl_jax.prediction import batches
from cmtl_jax.prediction.batches import Counted, Scaling
from cmtl_jax.prediction.counter import Counter
from cmtl_jax.prediction.output import Output
from cmtl_jax.prediction.record import Columns, Record
from cmtl_jax.prediction.smoothing import Smoother
from cmtl_jax.prediction.sources import Source
from cmtl_jax.prediction.video import Frame, Video
from cmtl_jax.prediction.zones import Zones


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the command was asked for.

    Attributes:
        columns: of tables.
        zones: counted each on their own.
        format: of the lines, see `record.FORMATS`.
        scaling: of pictures and frames before they are counted.
        batch_size: pictures counted together.
        every: every Nth frame of a video is counted.
        seconds: a video ends after that time.
        smooth: counts of a video are smoothed over that time, in seconds.
    """

    columns: Columns
    zones: Zones | None
    format: str
    scaling: Scaling
    batch_size: int
    every: int = 1
    seconds: float | None = None
    smooth: float | None = None


class Run:
    """Counts sources in turn, prints a line for each and writes files."""

    def __init__(
        self,
        counter: Counter,
        found: Sequence[Source],
        settings: Settings,
        output: Output | None = None,
    ):
        """Args: counter: counts; found: what; settings: how; output: the folder of --out."""
        self._counter, self._found, self._settings = counter, found, settings
        self._output = output
        self._weights = trained_model.short_name(counter.trained.source)
        self._trained_spacing = counter.trained.about.get("head_spacing")
        self._status = self._warnings = 0

    def all(self) -> int:
        """Counts all of them; returns the exit status."""
        if self._settings.format == "csv":
            self._print_line(self._settings.columns.header())
        for is_picture, group in itertools.groupby(
            range(len(self._found)), lambda i: self._found[i].kind == "picture"
        ):
            if is_picture:
                self._pictures(list(group))
            else:
                for position in group:
                    self._video(position)
        if self._warnings > 1:
            logging.warning("warning: the same holds for %d more", self._warnings - 1)
        return self._status

    def _pictures(self, positions: list[int]) -> None:
        """Counts the pictures at these positions and writes their results in that order."""
        paths = [self._found[position].path for position in positions]
        results = batches.count_pictures(
            self._counter,
            paths,
            scaling=self._settings.scaling,
            batch_size=self._settings.batch_size,
        )
        ready: dict[int, Callable[[], None]] = {}
        turn = 0
        # A bar only where there is something to wait for, and someone who sees it.
        hide = None if len(paths) > 1 else True
        with tqdm(total=len(paths), unit="picture", disable=hide) as bar:
            for i, counted in results:
                ready[i] = self._picture(positions[i], counted)
                bar.update()
                while turn in ready:
                    ready.pop(turn)()
                    turn += 1

    def _video(self, position: int) -> None:
        """Counts the frames of the video at this position and writes their results."""
        source, settings = self._found[position], self._settings
        with contextlib.ExitStack() as stack:
            try:
                video = stack.enter_context(
                    Video(
                        source,
                        every=settings.every,
                        seconds=settings.seconds,
                        max_pixels=settings.scaling.max_pixels,
                    )
                )
            except UserError as error:
                self._tell(error)
                return
            annotated = None
            if self._output is not None:
                annotated = self._output.video(position, video.rate)
                stack.callback(self._attempt, annotated.close)
            bar = stack.enter_context(tqdm(total=video.frames, unit="frame", disable=None))
            results = batches.count_frames(
                self._counter,
                video,
                scaling=settings.scaling,
                batch_size=1 if video.live else settings.batch_size,
            )
            smooth = None if settings.smooth is None else Smoother(settings.smooth)
            top = 0.0
            for result in results:
                if isinstance(result, UserError):
                    self._tell(result)
                    continue
                frame, counted = result
                try:
                    record = self._record(source, counted, frame, smooth)
                except UserError as error:  # the same for all frames
                    self._tell(f"{source.name}: {error}")
                    return
                self._print(record)
                self._add(record)
                if annotated is not None:
                    # The scale only grows, so that colours do not flicker.
                    top = max(top, _scale_top(counted.result.density))
                    picture = self._overlay(counted, record, frame.image, top)
                    if not self._attempt(annotated.write, picture, frame.seconds):
                        annotated = None
                bar.update()

    def _picture(self, position: int, counted: Counted | UserError) -> Callable[[], None]:
        """Writes the maps of a picture; returns what is to be done in its turn."""
        source = self._found[position]
        if isinstance(counted, UserError):
            return lambda: self._tell(counted)
        try:
            record = self._record(source, counted)
        except UserError as error:
            message = f"{source.name}: {error}"
            return lambda: self._tell(message)
        if self._output is None:
            return lambda: self._print(record)
        files: dict[str, Any] = {}
        failed = None
        try:
            drawn = self._overlay(counted, record, counted.result.picture)
            files = self._output.write_maps(position, source.name, counted.result.density, drawn)
        except UserError as error:
            failed = error

        def in_turn() -> None:
            self._print(record)
            self._add(record, **files)
            if failed is not None:
                self._tell(failed)

        return in_turn

    def _record(
        self,
        source: Source,
        counted: Counted,
        frame: Frame | None = None,
        smooth: Smoother | None = None,
    ) -> Record:
        """What is to be written about a count.

        Raises:
            UserError: the zones do not fit the picture.
        """
        self._warn(source, counted)
        result = counted.result
        zones = {} if self._settings.zones is None else self._settings.zones.counts(result.density)
        fields: dict[str, Any] = {}
        if self._settings.columns.resize:
            fields |= {"scale": counted.scale, "size": counted.size}
        if frame is not None:
            fields |= {"frame": frame.number, "seconds": frame.seconds, "time": frame.time}
            if smooth is not None:
                counts = np.array([result.count, *zones.values()])
                count, *others = smooth(counts, frame.seconds).tolist()
                fields |= {
                    "smoothed": count,
                    "smoothed_zones": dict(zip(zones, others, strict=True)),
                }
        return Record(source.name, result.count, zones, **fields)

    def _overlay(
        self, counted: Counted, record: Record, picture: np.ndarray, top: float | None = None
    ) -> Image.Image:
        from cmtl_jax.prediction import overlay  # imported here: counts alone need no matplotlib

        label = [self._weights]
        if record.scale is not None:
            label.append("counted at {1}×{0}".format(*counted.size))
        if record.frame is not None:
            label.append(record.time or f"{record.seconds:.2f} s")
        if record.smoothed is not None:
            label.append("smoothed")
        density = counted.result.density
        counts = record.smoothed_zones or record.zones
        zones = self._settings.zones
        polygons = {} if zones is None else zones.polygons(*density.shape)
        return overlay.overlay(
            picture,
            density,
            count=record.count if record.smoothed is None else record.smoothed,
            label=" · ".join(label),
            zones={f"{name}: {counts[name]:,.1f}": points for name, points in polygons.items()},
            top=top,
        )

    def _warn(self, source: Source, counted: Counted) -> None:
        text = head_spacing.warning(counted.spacing, self._trained_spacing, counted.scale)
        if text is None:
            return
        self._warnings += 1
        if self._warnings == 1:
            with tqdm.external_write_mode(file=sys.stderr):
                logging.warning("warning: %s: %s", printable(source.name), text)

    def _print(self, record: Record) -> None:
        if self._settings.format == "csv":
            line = self._settings.columns.row(record)
            # A file gets names as they are; a terminal would obey them.
            self._print_line(printable(line) if sys.stdout.isatty() else line)
        elif self._settings.format == "jsonl":
            self._print_line(record.json())
        else:
            self._print_line(record.text())

    def _print_line(self, line: str) -> None:
        with tqdm.external_write_mode():
            print(line, flush=True)

    def _add(self, record: Record, **files: Any) -> None:
        if self._output is not None:
            self._attempt(self._output.add, record, weights=self._weights, **files)

    def _attempt(self, write: Callable[..., object], *arguments: Any, **keywords: Any) -> bool:
        """Whether it worked; if not, it is told."""
        try:
            write(*arguments, **keywords)
        except UserError as error:
            self._tell(error)
            return False
        return True

    def _tell(self, error: UserError | str) -> None:
        with tqdm.external_write_mode(file=sys.stderr):
            console.complain(printable(str(error)))
        self._status = 1


def _scale_top(density: np.ndarray) -> float:
    from cmtl_jax.prediction import overlay

    return overlay.scale_top(np.maximum(density, 0) * overlay.PATCH_SIDE**2)
