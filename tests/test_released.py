"""The cascade with the authors' parameters computes what the authors' code computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmtl_jax.errors import UserError
from cmtl_jax.interop import released
from cmtl_jax.models import registry


@pytest.mark.parametrize("crop", "abcd")
def test_density_and_logits_equal_the_released_networks(shared, crop):
    golden = np.load(shared / "fixtures/cmtl_golden.npz")
    params = released.read(shared / "fixtures/cmtl_random.h5")
    model = registry.build("cmtl", **released.ARCHITECTURE)
    image = golden[f"{crop}_image"].astype(np.float32)
    height, width = image.shape[-2:]
    image = jnp.asarray(image.reshape(1, height, width, 1))
    output = jax.jit(model.apply)({"params": params}, image, jnp.array([[height, width]]))
    for name, ours in (("density", output.density), ("logits", output.group_logits)):
        theirs = golden[f"{crop}_{name}"]
        difference = np.abs(np.asarray(ours).reshape(theirs.shape) - theirs).max()
        assert difference <= 1e-5 * np.abs(theirs).max()


def test_other_files_are_refused(shared, tmp_path):
    with pytest.raises(UserError, match="holds no released CMTL parameters"):
        released.read(shared / "fixtures/mcnn_shtechB_110.h5")
    (tmp_path / "x.h5").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read as HDF5"):
        released.read(tmp_path / "x.h5")
