"""A study spelled out: every default as YAML for a person, every field as JSON schema for an editor."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ablate.core.yaml import dump
from ablate.feature_losses import FEATURE_LOSSES
from ablate.feature_losses import parse as parse_features
from ablate.losses import LOSSES, parse
from ablate.study.distillation_methods import PRESETS, with_preset
from ablate.study.fields import fields_of
from ablate.study.overlays import laid_over
from ablate.study.schema import Study
from ablate.study.training_recipes import Distill, Train, with_one_length

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def explain(study: Study) -> str:
    """-> the study as YAML, with every default in it; the same study when read again."""
    data = study.model_dump(mode="json", include=set(fields_of(Study)))
    train, distill = Train().model_dump(mode="json"), Distill().model_dump(mode="json")
    data["train"] = train | with_one_length(laid_over(train, data["train"]))
    own = {name: value for name, value in distill.items() if name not in train} | {"pair": next(iter(study.pairs))}
    above = [*_methods([data["pairs"], data["ablations"]])]
    named = dict.fromkeys([*_methods(data["distill"]), *above])
    data["distill"] = _spelled_out(own, data["distill"], is_uppermost=not above)
    data["ablations"] = {name: _without_unused_lists(ablation) for name, ablation in data["ablations"].items()}
    return dump(data) + "".join(_filled_in(method) for method in named if method in PRESETS)


def _spelled_out(own: dict[str, Any], distill: dict[str, Any], *, is_uppermost: bool) -> dict[str, Any]:
    """-> `distill` with the rest of a distillation's own settings: what its method fills in, and every default.

    Where another method may be said above, what this one fills in stays unsaid: it would stay when the method goes.
    """
    if is_uppermost:
        spelled = laid_over(own, with_preset(distill))
    else:
        spelled = laid_over(_unsaid_by(PRESETS.get(distill.get("method", "none"), {}), own), distill)
    losses = {name: spelled.get(name) for name in ("loss", "student_loss")}
    whole = {name: loss for name, loss in losses.items() if loss not in (None, "none") and _is_whole(loss)}
    features = spelled.get("features")
    if features not in (None, "none") and _is_whole(features):
        spelled["features"] = parse_features(features).model_dump(mode="json")
    return spelled | {name: parse(loss).model_dump(mode="json") for name, loss in whole.items()}


def _is_whole(loss: Any) -> bool:
    """Whether a loss is said with its name; without, it is some of its settings, over a loss that lies below."""
    return isinstance(loss, str) or "name" in loss


def _unsaid_by(preset: Mapping[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """-> the settings that a preset says nothing of, within its mappings too."""
    left = {name: value for name, value in settings.items() if name not in preset}
    partly = [name for name in ("sampling", "policy_gradient") if name in settings and name in preset]
    return left | {name: _unsaid_by(preset[name], settings[name]) for name in partly}


def _methods(value: Any, *, is_method: bool = False) -> Iterator[str]:
    """-> every `method` that is said somewhere in nested settings, also as an axis."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _methods(inner, is_method=str(name).rpartition(".")[2] == "method")
    elif isinstance(value, list):
        for inner in value:
            yield from _methods(inner, is_method=is_method)
    elif is_method:
        yield str(value)


def _filled_in(method: str) -> str:
    return f"# method {method} fills in, under what is said beside it: {json.dumps(PRESETS[method])}\n"  # type: ignore[index]


def _without_unused_lists(ablation: dict[str, Any]) -> dict[str, Any]:
    """-> an ablation without the ways to list cells that it does not use: said and empty they are a mistake."""
    return {name: value for name, value in ablation.items() if value or name not in ("grid", "zip", "rows")}


def json_schema() -> dict[str, Any]:
    """-> the JSON schema of a study file (draft 2020-12), with the settings of each loss."""
    schema = Study.model_json_schema()
    losses = {loss: LOSSES[loss].model_json_schema() for loss in LOSSES}
    for loss in losses.values():
        loss["required"] = ["name"]
        schema["$defs"] |= loss.pop("$defs", {})
    schema["$defs"]["AnyLoss"] = {
        "description": "A name, or a mapping with the name and the loss's settings.",
        "anyOf": [{"enum": list(losses)}, *losses.values()],
    }
    distill = schema["$defs"]["SomeDistill"]["properties"]
    distill["loss"] = {"$ref": "#/$defs/AnyLoss"}
    distill["student_loss"] = {"anyOf": [{"$ref": "#/$defs/AnyLoss"}, {"type": "null"}]}
    features = {name: FEATURE_LOSSES[name].model_json_schema() for name in FEATURE_LOSSES}
    for feature in features.values():
        feature["required"] = ["name"]
    distill["features"] = {"anyOf": [{"enum": [*features, "none"]}, *features.values(), {"type": "null"}]}
    schema["properties"]["extends"] = {
        "description": "Another study file, or several, that this one is laid over.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
    }
    return {"$schema": DRAFT, **schema}
