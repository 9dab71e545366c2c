"""A study spelled out: every default as YAML for a person, every field as JSON schema for an editor."""

from typing import Any

from ablate.feature_losses import FEATURE_LOSSES
from ablate.feature_losses import parse as parse_features
from ablate.losses import LOSSES, parse
from ablate.study.distillation_methods import with_preset
from ablate.study.fields import fields_of
from ablate.study.overlays import laid_over
from ablate.study.schema import Study
from ablate.study.training_recipes import Distill, Train, with_one_length
from ablate.study.yaml import dump

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def explain(study: Study) -> str:
    """-> the study as YAML, with every default in it; the same study when read again."""
    data = study.model_dump(mode="json", include=set(fields_of(Study)))
    train, distill = Train().model_dump(mode="json"), Distill().model_dump(mode="json")
    data["train"] = train | with_one_length(laid_over(train, data["train"]))
    own = {name: value for name, value in distill.items() if name not in train} | {"pair": next(iter(study.pairs))}
    data["distill"] = laid_over(own, with_preset(data["distill"]))
    for name in ("loss", "student_loss"):
        if data["distill"][name] is not None:
            data["distill"][name] = parse(data["distill"][name]).model_dump(mode="json")
    if (features := parse_features(data["distill"]["features"])) is not None:
        data["distill"]["features"] = features.model_dump(mode="json")
    data["ablations"] = {name: _without_unused_lists(ablation) for name, ablation in data["ablations"].items()}
    return dump(data)


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
