"""The distillation losses: one file each, settings and formula in one object; no torch at plan time."""

from ablate.losses.base import LOSSES, Loss, parse

__all__ = ["LOSSES", "Loss", "parse"]
