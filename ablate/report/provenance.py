"""Where a study was read from; where, when and with which versions a finished stage of it was run."""

from typing import Any

from ablate.planning.plan import Plan
from ablate.store.manifest import read_sound
from ablate.store.stage import Stage


def provenance(plan: Plan, stage: Stage) -> dict[str, Any]:
    """-> host, device, started (ISO 8601), seconds, python, versions; empty of what is not done, or is damaged."""
    return read_sound(plan.store.folder(stage), "stage.json").get("provenance") or {}


def study_file(plan: Plan) -> str | None:
    """-> the file that the study was read from: below its root where it lies there, else with its folder's name."""
    origin, root = plan.origin, plan.store.root
    if origin is None:
        return None
    parts = origin.file.relative_to(root).parts if origin.file.is_relative_to(root) else origin.file.parts[-2:]
    return "/".join(parts)


def overrides(plan: Plan) -> tuple[str, ...]:
    """-> as given with --set."""
    return plan.origin.overrides if plan.origin else ()
