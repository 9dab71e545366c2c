"""AdamW over float32 weights, the learning rate of each step, and the optimizer's state as named tensors."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ablate.study.training_recipes import Train

MOMENTS = ("exp_avg", "exp_avg_sq")


def learning_rate(step: int, total: int, recipe: Train) -> float:
    """-> learning rate of optimizer step `step` (1 the first) of `total`.

    Rises in `warmup_steps` equal steps to `lr`, then falls along half a cosine, a line, or not at all, to what would
    be 0 one step after the last: no step has rate 0.
    """
    if step <= recipe.warmup_steps:
        return recipe.lr * step / recipe.warmup_steps
    progress = (step - 1 - recipe.warmup_steps) / max(1, total - recipe.warmup_steps)
    shares = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "constant": 1.0}
    return recipe.lr * shares[recipe.schedule]


class Optimizer:
    """AdamW (1711.05101); weight decay on every weight it is given."""

    def __init__(self, weights: Mapping[str, Tensor], recipe: Train) -> None:
        self.weights = dict(weights)
        self.recipe = recipe
        options = recipe.optimizer
        self.adamw = torch.optim.AdamW(
            list(self.weights.values()),
            lr=recipe.lr,
            betas=options.betas,
            eps=options.eps,
            weight_decay=options.weight_decay,
            fused=True if self._is_on_cards else None,
        )

    @property
    def _is_on_cards(self) -> bool:
        """Whether one kernel can move all weights, for a dozen each; on a CPU results keep their last digits."""
        return bool(self.weights) and all(weight.is_cuda for weight in self.weights.values())

    def divide_grad(self, num_tokens: int) -> Tensor:
        """Sums of gradients become means over tokens, clipped if the recipe says so. -> the norm before clipping."""
        grads = [weight.grad for weight in self.weights.values() if weight.grad is not None]
        if not grads:
            return torch.zeros(())
        torch._foreach_div_(grads, float(max(1, num_tokens)))
        norm = nn.utils.get_total_norm(grads)
        if self.recipe.max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(list(self.weights.values()), self.recipe.max_grad_norm, norm)
        return norm

    def step(self, lr: float) -> None:
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()

    def state(self) -> dict[str, Tensor]:
        """-> `<moment>/<weight>` and `step/<weight>`; empty before the first step."""
        return {
            f"{part}/{name}": self.adamw.state[weight][part].detach().cpu().contiguous()
            for name, weight in self.weights.items()
            if weight in self.adamw.state
            for part in (*MOMENTS, "step")
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state` gave."""
        for name, weight in self.weights.items():
            if f"step/{name}" in state:
                parts = (*MOMENTS, "step")
                self.adamw.state[weight] = {part: state[f"{part}/{name}"].to(weight.device) for part in parts}
