"""ShanghaiTech part B (Zhang et al., CVPR 2016).

    python -m cmtl_jax.main --config=configs/shb.py[:recommended|paper|reference|c3]

The raw data lies in $CMTL_DATA_DIR/ShanghaiTech (default data/ShanghaiTech), or where
--config.dataset.raw_dir says.
"""

from cmtl_jax import config as base_config


def get_config(preset=None):
    config = base_config.base()
    config.name = "shb"
    config.dataset.name = "shanghaitech"
    config.dataset.options.part = "part_b"
    base_config.apply_preset(config, preset)
    if config.preset == "recommended":
        # Its heads are large, so that half the sides show enough of them: a quarter of the cost, and
        # four times the scene in a crop. 5,500 steps of crops of 96x96 gave a validation MAE of
        # 32.7, and 37.8 at full size.
        config.input.scale = 0.5
    if config.preset == "c3":
        # Its mean and deviation of the pictures, averaged over the colours.
        config.input.update(mean=113.2, std=57.7)
    return config
