"""Which card a profile's jobs get: as its options say, in whatever words, or as was seen when stages ran there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ablate.machine import gpus
from ablate.machine.slots import Slot
from ablate.planning.plan import Plan
from ablate.planning.timing import measured

KEYS = ("model", "gres", "constraint", "resources", "extra")
"""Of options: where a card may be named, the plainest first."""


def card_of(options: Mapping[str, Any]) -> str | None:
    """-> A100, from gpu:a100:1 or accelerator_type:A100; None where they name no card that is known."""
    return next((card for key in KEYS if (card := gpus.card_in(str(options.get(key) or "")))), None)


def slots_with_cards(slots: Sequence[Slot], plan: Plan) -> list[Slot]:
    """-> the slots, those with a card that nobody names with the one that finished stages of the plan had there."""
    unknown = {slot.profile for slot in slots if _lacks_model(slot)}
    seen = dict(_seen(plan, unknown)) if unknown else {}
    return [replace(slot, model=seen.get(slot.profile)) if _lacks_model(slot) else slot for slot in slots]


def _lacks_model(slot: Slot) -> bool:
    return slot.is_card and slot.model is None


def _seen(plan: Plan, profiles: set[str]) -> Iterator[tuple[str, str]]:
    """-> names of profiles, and on what finished stages of the plan ran there."""
    for stage in plan.stages:
        known = measured(plan.store, stage)
        for attempt in plan.store.attempts(stage.key12) if known and known.device else ():
            profile = (attempt.request or {}).get("slot", {}).get("profile")
            if known and profile in profiles:
                yield profile, known.device
