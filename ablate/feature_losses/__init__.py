"""The losses on hidden states between embedding and head: one file each; no torch at plan time."""

from ablate.feature_losses.base import FEATURE_LOSSES, FeatureLoss, parse

__all__ = ["FEATURE_LOSSES", "FeatureLoss", "parse"]
