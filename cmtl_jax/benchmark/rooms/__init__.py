"""What can be measured, by name."""

from cmtl_jax.benchmark.rooms import (
    evaluation,
    growth,
    input_pipeline,
    layers,
    memory,
    model,
    prediction,
    train_step,
)

ROOMS = {
    "model": model.measure,
    "train_step": train_step.measure,
    "layers": layers.measure,
    "memory": memory.measure,
    "input_pipeline": input_pipeline.measure,
    "evaluation": evaluation.measure,
    "prediction": prediction.measure,
}
GROWTH = {"growth": growth.measure}
NAMES = (*ROOMS, *GROWTH)
