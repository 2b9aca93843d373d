"""A page for clicking heads, opened from disk in a browser; saves what cmtl_jax.importers reads."""

import importlib.resources


def page() -> bytes:
    """The page: one HTML file that needs nothing else, and no network."""
    return importlib.resources.files(__name__).joinpath("page.html").read_bytes()
