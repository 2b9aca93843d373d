"""One training step of the PyTorch baseline: the work of cmtl_jax.training.steps."""

from collections.abc import Callable

import torch
from torch.nn import functional

Step = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def objective(
    density: torch.Tensor,
    logits: torch.Tensor,
    target: torch.Tensor,
    group: torch.Tensor,
    class_weights: torch.Tensor,
    *,
    group_weight: float,
    density_scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss (paper, Eq. 3) and its density part.

    Mean squared error over pixels, both maps times density_scale, and weighted cross-entropy,
    averaged over examples; both in the type of the target and the class weights.
    """
    density, logits = density.to(target.dtype), logits.to(class_weights.dtype)
    density_loss = functional.mse_loss(density * density_scale, target * density_scale)
    entropy = functional.cross_entropy(logits, group, reduction="none")
    group_loss = (entropy * class_weights[group]).mean()
    return density_loss + group_weight * group_loss, density_loss


def make_step(
    net: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    optimizer: torch.optim.Optimizer,
    class_weights: torch.Tensor,
    *,
    group_weight: float,
    density_scale: float,
    autocast: torch.autocast,
    compiled: bool,
) -> Step:
    """step(image, density, group) -> the density part of the loss, before the step.

    Args:
        net: the cascade, in training mode.
        optimizer: of its parameters.
        class_weights: float32 [G].
        group_weight: the paper's lambda.
        density_scale: see objective.
        autocast: the context that the network and the losses are computed in.
        compiled: whether torch.compile makes one program of network and losses.
    """

    def losses(image: torch.Tensor, target: torch.Tensor, group: torch.Tensor):
        with autocast:
            density, logits = net(image)
        return objective(
            density, logits, target, group, class_weights,
            group_weight=group_weight, density_scale=density_scale,
        )  # fmt: skip

    compute = torch.compile(losses) if compiled else losses

    def step(image: torch.Tensor, target: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss, density_loss = compute(image, target, group)
        loss.backward()
        optimizer.step()
        return density_loss.detach()

    return step
