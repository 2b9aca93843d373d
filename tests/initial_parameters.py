"""Initial parameters in seconds: drawing many tensors takes far longer to optimise than to run."""

import jax

from cmtl_jax import trained_model

# (model, seed, channels); a program for each model.
initial_parameters = jax.jit(
    trained_model.init_params,
    static_argnums=(0, 2),
    compiler_options={"xla_backend_optimization_level": 0},
)
