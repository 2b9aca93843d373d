"""The folder in a work folder that the results of an evaluation go to."""

import pathlib

import ml_collections

from cmtl_jax import trained_model


def of(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, name: str, *, own: bool
) -> pathlib.Path:
    """workdir/eval/<name>, or one beside it, so that no other weights replace a run's results.

    Args:
        config: of the evaluation.
        workdir: the work folder.
        name: data set and split, such as 'shanghaitech-part_a-test'.
        own: whether the folder without more in its name is kept for a run of workdir's own, where
            config.init_from says others. Those of config.eval.close_weights always have their own.
    """
    others = {"from": own and config.init_from, "with": config.eval.close_weights}
    ends = (f"-{how}-{trained_model.short_name(which)}" for how, which in others.items() if which)
    return workdir / "eval" / f"{name}{''.join(ends)}"
