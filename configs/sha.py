"""ShanghaiTech part A (Zhang et al., CVPR 2016).

    python -m cmtl_jax.main --config=configs/sha.py[:recommended|paper|reference]

The raw data lies in $CMTL_DATA_DIR/ShanghaiTech (default data/ShanghaiTech), or where
--config.dataset.raw_dir says.
"""

from cmtl_jax import config as base_config


def get_config(preset=None):
    config = base_config.base()
    config.name = "sha"
    config.dataset.name = "shanghaitech"
    config.dataset.options.part = "part_a"
    base_config.apply_preset(config, preset)
    return config
