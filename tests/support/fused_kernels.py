"""Stands for the kernels of fused layers on the meta device: each one operation forward and one back, as on a card."""

import torch

from ablate.training.fused_layers import Kernels


def op(name, num_results):
    """-> an operation that gives `num_results` tensors like its first ones, without numbers."""

    def fn(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> list[torch.Tensor]:
        return [torch.empty_like(like) for like in (x, y, z)[:num_results]]

    made = torch.library.custom_op(f"fused_layers::{name}", fn, mutates_args=())
    made.register_fake(fn)
    return made


NORM, NORM_BACK = op("norm", 1), op("norm_back", 1)
GATE, GATE_BACK = op("gate", 1), op("gate_back", 2)
TURN, TURN_BACK = op("turn", 2), op("turn_back", 2)


class Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return NORM(x, weight, weight)[0]

    @staticmethod
    def backward(ctx, grad):
        return NORM_BACK(grad, *ctx.saved_tensors)[0], None


class Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return GATE(gate, up, up)[0]

    @staticmethod
    def backward(ctx, grad):
        return tuple(GATE_BACK(*ctx.saved_tensors, grad))


class Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, cos, sin):
        ctx.save_for_backward(cos)
        return tuple(TURN(q, k, cos))

    @staticmethod
    def backward(ctx, grad_q, grad_k):
        return (*TURN_BACK(grad_q, grad_k, *ctx.saved_tensors), None, None)


COUNTED = Kernels(
    "counted",
    lambda x, weight, eps, offset, casting: Norm.apply(x, weight),
    lambda activation, gate, up: Gate.apply(gate, up),
    lambda q, k, cos, sin: Turn.apply(q, k, cos, sin),
)
