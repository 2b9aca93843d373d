"""ShanghaiTech part A (Zhang et al., CVPR 2016).

    python -m cmtl_jax.main --config=configs/sha.py[:recommended|paper|reference|c3]

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
    if config.preset == "c3":
        # Its mean and deviation of the pictures, averaged over the colours.
        config.input.update(mean=97.0, std=69.6)
        config.train.update(batch_size=1, steps=300_000, eval_every=3000)
    return config
