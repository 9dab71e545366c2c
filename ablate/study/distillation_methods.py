"""Papers' methods by name: what each says of who writes the answers, and what is learnt from them."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from ablate.study.overlays import laid_over

Method: TypeAlias = Literal["seqkd", "gkd", "minillm", "distillm", "distillm2", "opd"]

_AS_THEY_ARE: Mapping[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
"""Sampling from the models' own distributions."""
_PLAIN: dict[str, Any] = {
    "answers": "dataset",
    "student_fraction": 0.0,
    "replay": None,
    "objective": "divergence",
    "student_loss": None,
    "kd_ratio": 1.0,
}
"""What a method says where it says nothing else, so that nothing is left of a setting below."""

PRESETS: Mapping[Method, Mapping[str, Any]] = {
    "seqkd": _PLAIN | {"answers": "teacher", "kd_ratio": 0.0, "sampling": {"temperature": 0.0}},
    "gkd": _PLAIN | {"student_fraction": 0.5, "loss": {"name": "jsd", "beta": 0.5}, "sampling": _AS_THEY_ARE},
    "minillm": _PLAIN
    | {
        "answers": "mixed",
        "objective": "policy_gradient",
        "loss": "reverse_kl",
        "temperature": 1.0,
        "sampling": {**_AS_THEY_ARE, "mix": 0.2},
        "policy_gradient": {"discount": 1.0, "single_step": "exact", "normalize_length": True, "clip": 2.0},
    },
    "distillm": _PLAIN
    | {
        "loss": {"name": "skew_reverse_kl", "beta": 0.9},
        "sampling": _AS_THEY_ARE,
        "replay": {"capacity": 1000, "reuse": 4, "adaptive": {"step": 0.1, "tolerance": 0.1}},
    },
    "distillm2": _PLAIN
    | {
        "answers": "teacher",
        "student_fraction": 0.5,
        "loss": {"name": "skew_forward_kl", "beta": 0.1},
        "student_loss": {"name": "skew_reverse_kl", "beta": 0.9},
        "sampling": {"temperature": 0.8, "top_p": 0.95, "top_k": 0},
    },
    "opd": _PLAIN
    | {
        "answers": "student",
        "objective": "policy_gradient",
        "loss": "reverse_kl",
        "temperature": 1.0,
        "sampling": _AS_THEY_ARE,
        "policy_gradient": {"discount": 0.0, "single_step": "sampled"},
    },
}
"""What `method` fills in, over what lies below and under what is said beside it: all that the method asks for.
docs/methods.md says what of a paper it is."""


def with_preset(distillation: dict[str, Any]) -> dict[str, Any]:
    """-> the settings of a distillation over those of the method that they name."""
    method = distillation.get("method")
    preset = PRESETS.get(method) if isinstance(method, str) else None  # type: ignore[call-overload]
    return laid_over(dict(preset), distillation) if preset else distillation
