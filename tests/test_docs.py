"""The pages: their links lead somewhere, and the keys and commands they name are there."""

import importlib.util
import pathlib
import re

import pytest

from cmtl_jax import config as base_config

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

pytestmark = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page):
    """What a link to a heading ends in."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


def test_modules_are_there(page):
    for module in set(re.findall(r"python -m (cmtl_jax[\w.]*\w)", page.read_text())):
        assert importlib.util.find_spec(module), module


def test_config_keys_are_there(page):
    base = base_config.base()
    for key in set(re.findall(r"--config\.([\w.]*\w)", page.read_text())):
        *sections, name = key.split(".")
        at = base
        for section in sections:
            at = at[section]
        free = sections == ["dataset", "options"]  # each data set has its own
        assert free or name in at, key


def test_test_files_and_configs_are_there(page):
    text = page.read_text()
    for path in set(re.findall(r"\b((?:tests|configs|cmtl_jax)/[\w/]+\.\w+)", text)):
        assert (ROOT / path).exists(), path
