"""The commands of the pages, as a shell reads them: each can run after those before it."""

import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from unittest import mock

import pytest
from absl import flags
from ml_collections import config_flags

from cmtl_jax import config as base_config
from cmtl_jax import trained_model
from cmtl_jax.errors import UserError
from cmtl_jax.interop import safetensors_file
from cmtl_jax.training import continuation

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Pages that are followed from top to bottom, one behind the other where they build on each other.
_TOGETHER = (
    ("docs/weights.md", "docs/where_counts_go_wrong.md"),
    tuple(f"cmtl_jax/weights/{name}.md" for name in ("shb", "sha", "ucf_cc_50")),
)
_ALONE = [
    (str(path.relative_to(ROOT)),)
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if not any(str(path.relative_to(ROOT)) in pages for pages in _TOGETHER)
    and "cmtl_jax.main" in path.read_text()
]
# Prints the arguments of each python command in place of running it; nothing else is found.
_SHELL = """
python() { printf '%s\\x1f' "$@"; printf '\\x1e'; }
command_not_found_handle() { :; }
source() { :; }
PATH=/nowhere
"""


def blocks(text: str) -> Iterator[str]:
    """Blocks of code that train or evaluate: indented, or within a sentence."""
    for block in re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+|`python[^`]+`", text, re.MULTILINE):
        if "-m cmtl_jax.main -" in block:
            yield block.strip("`")


def commands(text: str) -> list[list[str]]:
    """The arguments of each `python -m cmtl_jax.main` of a page, variables filled in."""
    script = _SHELL + "\n".join(blocks(text))
    shell = ["bash", "--noprofile", "--norc", "-u", "-c", script]
    done = subprocess.run(shell, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert not done.stderr, done.stderr
    lines = [line.split("\x1f")[:-1] for line in done.stdout.split("\x1e")[:-1]]
    return [line[2:] for line in lines if line[:2] == ["-m", "cmtl_jax.main"]]


class Reader:
    """Follows commands, and remembers which work folders and exported files there are by then."""

    def __init__(self):
        self.trained = {}
        self.exported = {}  # files, and the channels that they want

    def __call__(self, arguments: list[str]) -> None:
        """Follows one.

        Raises:
            UserError: it is wrong, or another run lives in its work folder.
            AssertionError: it asks for weights that are not there by then, or of colours for grey.
        """
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", None, "", flag_values=values)
        flags.DEFINE_string("workdir", None, "", flag_values=values)
        flags.DEFINE_string("mode", "train", "", flag_values=values)
        line = ["main", *arguments]
        base_config.check_arguments(line)
        with mock.patch.object(sys, "argv", line):  # where ml_collections looks for keys
            assert values(line)[1:] == []
        config = values.config
        base_config.validate(config)
        workdir = values.workdir or str(base_config.default_workdir(config))
        for key in (config.init_from, config.eval.close_weights):
            for source in trained_model.sources(key) if key else ():
                channels = self._channels(source)
                if values.mode == "export":
                    file = f"{config.name}.{config.export.format}"
                    self.exported[f"{workdir}/export/{file}"] = channels
                if values.mode == "train" and channels:
                    assert channels <= config.input.channels, f"{source}: colours, not grey"
        if values.mode == "train":
            plain = {"config": json.loads(config.to_json_best_effort()), "train_ids_sha256": ""}
            if workdir in self.trained:
                continuation.check(self.trained[workdir], plain, workdir)
                before = self.trained[workdir]["config"]
                assert before["init_from"] == config.init_from, workdir
                assert before["train"]["steps"] <= config.train.steps, workdir
            self.trained[workdir] = plain

    def _channels(self, source: str) -> int:
        """Of the pictures that weights want; 0 where a file of others says it."""
        if source in self.trained:
            return self.trained[source]["config"]["input"]["channels"]
        if source in self.exported:
            return self.exported[source]
        if source.endswith(".h5"):
            return 0
        assert source in trained_model.shipped(), f"nothing has made {source} by then"
        _, about = safetensors_file.read(trained_model.SHIPPED / f"{source}.safetensors")
        return about["config"]["input"]["channels"]


@pytest.mark.parametrize("pages", [*_TOGETHER, *_ALONE], ids=lambda pages: pages[0])
def test_commands_run_one_after_the_other(pages, monkeypatch):
    monkeypatch.chdir(ROOT)
    follow = Reader()
    for page in pages:
        found = commands((ROOT / page).read_text())
        assert found, page
        for arguments in found:
            if not any(re.search(r"=[A-Z]+$", argument) for argument in arguments):
                follow(arguments)


@pytest.mark.parametrize(
    "page, told",
    [
        ("--config.seed=1 --workdir=runs/a", "holds a run with config.seed"),
        ("--config.init_from=runs/b --workdir=runs/c", "nothing has made runs/b"),
        ("--config.init_from=shb --workdir=runs/c", "colours, not grey"),
        ("$third --workdir=runs/c", "third: unbound variable"),
        ("--config.sed=1 --workdir=runs/c", "sed"),
        ("--config.train.steps=5 --workdir=runs/a", "runs/a"),
    ],
)
def test_what_cannot_run_is_found(page, told, monkeypatch):
    monkeypatch.chdir(ROOT)
    line = "    python -m cmtl_jax.main --config=configs/sha.py "
    follow = Reader()
    with pytest.raises((UserError, AssertionError), match=re.escape(told)):
        for arguments in commands(f"{line}--workdir=runs/a\n\nand\n\n{line}{page}\n"):
            follow(arguments)
