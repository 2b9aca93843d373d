"""What the rooms share: settings, files that both sides read, and the sides themselves."""

import contextlib
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from cmtl_jax.benchmark.measure import alternate
from cmtl_jax.benchmark.process import Once, Side, SideError, once
from cmtl_jax.benchmark.row import Row
from cmtl_jax.benchmark.settings import Settings

OURS = "ours"
# Of the numbers that both sides find, relative; as far as rounding can drive them apart.
TOLERANCE = {"float32": 1e-3, "tensorfloat32": 1e-2, "bfloat16": 0.1}
_DTYPES = ("float32", "bfloat16")

# How PyTorch's users make it fast; the best one counts.
LAYOUTS: dict[str, dict[str, bool]] = {
    "default layout": {},
    "channels_last": {"channels_last": True},
}
VARIANTS = LAYOUTS | {
    "torch.compile": {"compiled": True},
    "torch.compile, channels_last": {"compiled": True, "channels_last": True},
}


class Pictures:
    """Pictures with head points on disk, in the form of either side.

    Attributes:
        dataset: keys of config.dataset.
        folder: of plain files, see ours.prepare_pictures.
        sizes: (height, width) of each.
    """

    def __init__(self, dataset: dict[str, Any], folder: pathlib.Path, sizes: list[list[int]]):
        self.dataset, self.folder, self.sizes = dataset, folder, sizes

    def pixels(self, number: int) -> int:
        """Of the first ones."""
        return sum(height * width for height, width in self.sizes[:number])


class Bench:
    """One run of the benchmark."""

    def __init__(self, settings: Settings, scratch: pathlib.Path, tfds_dir: str = ""):
        """
        Args:
            settings: what is measured.
            scratch: folder that is removed afterwards.
            tfds_dir: where prepared pictures are kept; '' for the scratch folder.
        """
        self.settings, self.scratch = settings, scratch
        self._tfds_dir = tfds_dir or str(scratch / "tfds")
        self._pictures: Pictures | None = None
        with Side("ours", self.environment()) as side:
            dtypes = [d for d in _DTYPES if d == "float32" or d in settings.precisions]
            self._weights = {dtype: str(scratch / f"{dtype}.h5") for dtype in dtypes}
            for dtype, path in self._weights.items():
                side.prepare(dtype, "write_weights", path=path, dtype=dtype)
                side.run(dtype)
            side.prepare("about", "about")
            self.about = {OURS: side.result("about")}
        if settings.torch:
            self.about["torch"] = once("torch", "about").result
        self.platform = "cpu" if self.about[OURS]["platform"] == "cpu" else "gpu"

    @property
    def torch(self) -> bool:
        """Whether PyTorch is measured: it is there, and on the same kind of device."""
        found = self.about.get("torch")
        return found is not None and (self.platform == "cpu" or bool(found["cuda"]))

    @property
    def variants(self) -> dict[str, dict[str, bool]]:
        """Of PyTorch: what is added to the spec of a task, by name."""
        return VARIANTS if self.settings.torch_compile else LAYOUTS

    def environment(self, cache: str = "cache", **more: str) -> dict[str, str | None]:
        """Of our side: compiled programs are kept in a folder of the scratch folder, none before.

        Args:
            cache: name of that folder.
            **more: further variables.
        """
        return {
            "XDG_CACHE_HOME": str(self.scratch / cache),
            "JAX_COMPILATION_CACHE_DIR": None,
            "MPLCONFIGDIR": str(self.scratch / "matplotlib"),
            # PyTorch's process needs its share of the same GPU.
            "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45",
            **more,
        }

    def once(self, framework: str, task: str, cache: str = "cache", /, **spec: Any) -> Once:
        """A task of either side done once in a fresh process; see process.once.

        Raises:
            SideError: it failed.
        """
        environment = self.environment(cache) if framework == OURS else None
        return once(framework, task, environment, **spec)

    def weights(self, precision: str = "float32") -> str:
        """File of first weights in the released format; they say what they are computed with."""
        return self._weights[_DTYPES[precision == "bfloat16"]]

    def pictures(self) -> Pictures:
        """Those of settings.data, or drawn ones."""
        if self._pictures is None:
            s = self.settings
            dataset: dict[str, Any] = {"tfds_dir": self._tfds_dir, "val_fraction": 0.0}
            if s.data:
                dataset |= {"name": "point_folder", "raw_dir": s.data}
            else:
                options = {
                    "num_train": 0, "num_test": s.pictures,
                    "height": s.heights, "width": s.widths, "seed": 0,
                }  # fmt: skip
                dataset |= {"name": "synthetic", "options": options}
            self.say("preparing pictures")
            folder = self.scratch / "pictures"
            made = self.once(
                "ours", "prepare_pictures",
                dataset=dataset, number=s.pictures, folder=str(folder),
            )  # fmt: skip
            self._pictures = Pictures(dataset, folder, made.result["sizes"])
        return self._pictures

    def say(self, text: str) -> None:
        """A line for people who wait."""
        print(text, file=sys.stderr, flush=True)

    def finish(self, row: Row) -> Row:
        """The row, told to people who wait."""
        result = "failed" if row.ours is None else f"{row.ours.median:.4g} {row.unit}"
        ratio = "" if row.ratio is None else f", {row.ratio:.2f} of PyTorch's ({row.best})"
        self.say(f"{row.room}: {row.title} {row.precision}: {result}{ratio}")
        return row

    def compare(
        self,
        key: str,
        title: str,
        task: str,
        *,
        precision: str,
        spec: Mapping[str, Any],
        torch_spec: Mapping[str, Any] | None = None,
        variants: Mapping[str, Mapping[str, Any]] | None = None,
        environment: Mapping[str, str] | None = None,
        **row: Any,
    ) -> Row:
        """A row of a task that a process of each side does again and again.

        Args:
            key: of the row.
            title: of the row.
            task: name of the task, on both sides.
            precision: of the row, and of the products unless ''.
            spec: of the task, for our side.
            torch_spec: for PyTorch's; the same where None.
            variants: of PyTorch, by name: what is added to its spec; None for `self.variants`.
            environment: further variables of our side's process.
            **row: further fields of the row.
        """
        both = {"precision": precision} if precision else {}
        variants = self.variants if variants is None else variants
        torch_spec = spec if torch_spec is None else torch_spec
        if precision:
            torch_spec = dict(torch_spec) | {"platform": self.platform}
        left_out: dict[str, str] = {}
        details: dict[str, Any] = {}
        notes: list[str] = []
        fields = {"precision": precision, "platform": self.platform, "unit": "seconds"} | row
        with contextlib.ExitStack() as stack:
            try:
                ours = stack.enter_context(Side("ours", self.environment(**environment or {})))
                first, mine = _first(ours, OURS, task, **both, **spec)
                sides: dict[str, Callable[[], float]] = {OURS: lambda: ours.run(OURS)}
                details |= {"first_seconds": first, "result": mine}
                if self.torch and variants:
                    torch, results = _baselines(stack, task, variants, left_out, both, torch_spec)
                    sides |= {name: _runner(torch, name) for name in results}
                    details["torch_results"] = results
                    notes += disagreements(mine, results, precision)
                found = alternate(
                    sides,
                    repeats=self.settings.repeats,
                    seconds=self.settings.seconds,
                    variants=[name for name in sides if name != OURS],
                )
            except SideError as error:
                return self.finish(Row(key, title, ours=None, notes=(str(error),), **fields))
        return self.finish(
            Row(
                key, title, ours=found.pop(OURS), torch=found, left_out=left_out,
                notes=tuple(notes), details=details, **fields,
            )  # fmt: skip
        )

    def compare_fresh(
        self,
        key: str,
        title: str,
        ours: Callable[[], float],
        torch: Mapping[str, Callable[[], float]],
        *,
        warm_up: bool = False,
        **row: Any,
    ) -> Row:
        """A row of values of which each takes fresh processes.

        Args:
            key: of the row.
            title: of the row.
            ours: measures our side once.
            torch: measures PyTorch's, by variant; unused where PyTorch is not measured.
            warm_up: whether our side is run once before, to leave its programs on disk.
            **row: further fields of the row.
        """
        fields = {"platform": self.platform, "precision": "", "unit": "seconds"} | row
        torch = torch if self.torch else {}
        try:
            if warm_up:
                ours()
            found = alternate(
                {OURS: ours, **torch},
                repeats=self.settings.fresh_repeats,
                seconds=self.settings.seconds,
                variants=list(torch),
            )
        except SideError as error:
            return self.finish(Row(key, title, ours=None, notes=(str(error),), **fields))
        return self.finish(Row(key, title, ours=found.pop(OURS), torch=found, **fields))


def disagreements(
    ours: Mapping[str, Any], torch: Mapping[str, Mapping[str, Any]], precision: str
) -> list[str]:
    """Sentences on the variants of PyTorch that did not find what we found.

    Args:
        ours: numbers by name; what is no fraction is not compared.
        torch: the same by variant.
        precision: of the products, which tells how far results may differ.
    """
    said = []
    for variant, found in torch.items():
        for name, value in ours.items():
            other = found.get(name)
            if isinstance(value, float) and isinstance(other, float):
                apart = abs(value - other) / max(abs(value), abs(other), 1e-30)
                if not apart <= TOLERANCE.get(precision, TOLERANCE["float32"]):
                    said.append(
                        f"NOT the same work: {name} {value:.6g}, PyTorch ({variant}) {other:.6g}"
                    )
    return said


def _first(
    side: Side, name: str, task: str, /, **spec: Any
) -> tuple[float, dict[str, Any]]:
    """Sets a task up and runs it until it is as quick as it gets.

    Returns:
        Seconds of the first run, which compiles, and what it found.
    """
    side.prepare(name, task, **spec)
    seconds = side.run(name)
    result = side.result(name)
    side.settle(name)
    return seconds, result


def _baselines(
    stack: contextlib.ExitStack,
    task: str,
    variants: Mapping[str, Mapping[str, Any]],
    left_out: dict[str, str],
    both: Mapping[str, Any],
    spec: Mapping[str, Any],
) -> tuple[Side, dict[str, dict[str, Any]]]:
    """A process with all variants set up that work, and what each found; fills left_out."""
    while True:
        side = stack.enter_context(Side("torch"))
        results = {}
        for name, options in variants.items():
            if name in left_out:
                continue
            try:
                _, results[name] = _first(side, name, task, **both, **spec, **options)
            except SideError as error:
                left_out[name] = str(error)
                if not side.alive:
                    break
        if side.alive:
            return side, results


def _runner(side: Side, name: str) -> Callable[[], float]:
    return lambda: side.run(name)
