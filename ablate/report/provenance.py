"""Where, when and with which versions a finished stage was run: the provenance that its record tells."""

from typing import Any

from ablate.planning.plan import Plan
from ablate.store.manifest import read_sound
from ablate.store.stage import Stage


def provenance(plan: Plan, stage: Stage) -> dict[str, Any]:
    """-> host, device, started (ISO 8601), seconds, python, versions; empty of what is not done, or is damaged."""
    return read_sound(plan.store.folder(stage), "stage.json").get("provenance") or {}
