"""Your own pictures with head points (CSV, JSON or .mat beside each picture).

    python -m cmtl_jax.main --config=configs/point_folder.py --config.dataset.raw_dir=DIR

DIR may hold train/ and test/; otherwise everything is for training and validation.
"""

from cmtl_jax import config as base_config


def get_config(preset=None):
    config = base_config.base()
    config.name = "point_folder"
    config.dataset.name = "point_folder"
    base_config.apply_preset(config, preset)
    if config.preset == "recommended":
        config.train.steps = 5000
        config.train.eval_every = 250
    return config
