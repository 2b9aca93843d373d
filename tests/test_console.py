"""Errors for people: one line, status 1; bugs keep their traceback."""

import errno
import logging

import pytest
from absl import logging as absl_logging
from ml_collections import ConfigDict
from work_folders import kept_logging, only_error

from cmtl_jax import console
from cmtl_jax.errors import UserError


def failing(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize("status", [0, 1, 143])
def test_the_status_of_the_command_is_handed_on(status, capsys):
    assert console.run(lambda: status) == status
    assert capsys.readouterr() == ("", "")


def test_bad_input_is_one_line(capsys):
    assert console.run(failing(UserError("a.jpg is\n  damaged; remove it\n"))) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: a.jpg is damaged; remove it\n")


def test_files_that_fail_are_named(capsys):
    full = OSError(errno.ENOSPC, "No space left on device", "runs/a/config.json")
    assert console.run(failing(full)) == 1
    line = only_error(capsys.readouterr().err)
    assert "runs/a/config.json" in line and "No space left on device" in line
    assert console.run(failing(OSError("odd"))) == 1
    assert "odd" in only_error(capsys.readouterr().err)


def test_interruption_has_the_status_of_shells(capsys):
    assert console.run(failing(KeyboardInterrupt())) == 130
    only_error(capsys.readouterr().err)


def test_bugs_pass():
    for bug in (ValueError("x"), KeyError("x"), RuntimeError("x"), BrokenPipeError()):
        with pytest.raises(type(bug)):
            console.run(failing(bug))


def test_errors_are_put_on_one_line():
    with pytest.raises((KeyError, AttributeError)) as caught:
        ConfigDict({"height": 1}).hight  # noqa: B018
    line = console.one_line(caught.value)
    assert "\n" not in line and "\\" not in line and "height" in line
    assert console.one_line(ValueError()) == "ValueError"


@pytest.fixture
def logs():
    with kept_logging():
        yield logging.getLogger()


def record(name, level, path):
    return logging.LogRecord(name, level, path, 1, f"{name} says", None, None)


def test_only_this_project_is_heard(logs, capsys):
    console.setup()
    logging.info("from here")
    absl_logging.info("from here by absl")
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        logs.handle(record(f"orbax{level}", level, "/lib/orbax/checkpoint/a.py"))
        logs.handle(record(f"jax{level}", level, "/lib/jax/_src/a.py"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "from here", "from here by absl", "orbax40 says", "jax40 says"
    ]  # fmt: skip


def test_quiet_keeps_warnings(logs, capsys):
    console.setup(quiet=True)
    logging.info("news")
    logging.warning("a warning")
    assert capsys.readouterr() == ("", "a warning\n")
