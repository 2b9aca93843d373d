"""Compiled programs kept on disk: a second fold, or a run that goes on, does not compile again."""

import logging
import os
import pathlib
import tempfile

import jax

from cmtl_jax import cache_folder

_MOST_BYTES = 4 * 2**30  # the programs used longest ago go first
_SHORTEST = 0.1  # seconds; JAX's own limit, 1 s, leaves out the program that counts one picture
_SHORTEST_KEY = "jax_persistent_cache_min_compile_time_secs"


def enable() -> pathlib.Path | None:
    """Lets JAX keep programs that took a tenth of a second or more to compile.

    To be called before the first program is compiled.

    The folder is $XDG_CACHE_HOME/cmtl_jax/xla (or ~/.cache/...), one below it for each kind of
    processor, as programs for one may not run on another that shares the home folder.
    JAX_COMPILATION_CACHE_DIR, where it is set, is left as it is, even empty (off), and so is
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS.

    Returns:
        The folder; None where another was chosen or it cannot be written, which is only warned of.
    """
    if _SHORTEST_KEY.upper() not in os.environ:
        jax.config.update(_SHORTEST_KEY, _SHORTEST)
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or jax.config.jax_compilation_cache_dir:
        return None
    try:
        folder = cache_folder.folder("xla")
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0")
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        logging.warning(
            "compiled programs are not kept (%s); set JAX_COMPILATION_CACHE_DIR to a folder that "
            "can be written", error,
        )  # fmt: skip
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if jax.config.jax_compilation_cache_max_size < 0:  # unlimited, the default
        jax.config.update("jax_compilation_cache_max_size", _MOST_BYTES)
    return folder
