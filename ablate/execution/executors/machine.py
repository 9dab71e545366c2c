"""What this machine offers: its cards in shares, a slot a core where there is none, and who else is on the cards."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from ablate.core import processes
from ablate.core.errors import AblateError
from ablate.execution.executors.base import supervisor_of
from ablate.machine import gpus
from ablate.machine.gpus import Card, Holder
from ablate.machine.slots import SHARES, Placing, Slot, Taken, Work
from ablate.store.attempt import Attempt

NUM_ONLINE = 4
NUM_LIGHT = 4
MAX_THREADS = 8
BYTES_PER_JOB = 4 << 30
"""Memory that must be free for one more stage at once, where there is no card; --jobs says otherwise."""
NEGLIGIBLE = 0.05
"""Share of a card's memory that a screen or a monitor may hold."""


def slots(placing: Placing, nvml: Any = None) -> list[Slot]:
    """-> every slot. Raises AblateError for a chosen card that is not there."""
    wish = f"gpus of profile {placing.profile}" if "gpus" in placing.options else "--gpus"
    cards = chosen(gpus.visible_here(nvml), placing.gpus, wish)
    num_cores = _num_cores()
    online = [Slot(f"online {n}", frozenset({"online"})) for n in range(NUM_ONLINE)]
    if not cards:
        return [*online, *_cpus(placing.num_jobs or num_jobs(num_cores))]
    threads = max(1, min(MAX_THREADS, num_cores // len(cards)))
    light = [Slot(f"cpu {n}", frozenset({"light"})) for n in range(min(NUM_LIGHT, num_cores))]
    return [*online, *light, *(_slot(card, threads) for card in cards)]


def num_jobs(num_cores: int) -> int:
    """-> how many stages at once fit where there is no card."""
    return min(num_cores, max(1, psutil.virtual_memory().available // BYTES_PER_JOB))


def _cpus(num: int) -> list[Slot]:
    either: frozenset[Work] = frozenset({"light", "heavy"})
    memory = int(psutil.virtual_memory().total)
    model = processes.processor()
    return [Slot(f"cpu {n}", either, model=model, memory_bytes=memory, can_join=True) for n in range(num)]


def _slot(card: Card, threads: int) -> Slot:
    return Slot(
        f"gpu {card.number}",
        frozenset({"heavy"}),
        "cuda",
        card.uuid,
        threads,
        card.name,
        num_shares=SHARES,
        memory_bytes=card.total_bytes,
        can_join=":" not in card.number,  # slices of a card do not speak with each other
    )


def chosen(cards: Sequence[Card], names: tuple[str, ...] | None, wish: str = "--gpus") -> list[Card]:
    """-> the cards named, by their place among the visible or by UUID; all unless said.

    Raises AblateError for a name of none; `wish` is who named it.
    """
    if names is None:
        return list(cards)
    by_name = {str(place): card for place, card in enumerate(cards)} | {card.uuid: card for card in cards}
    missing = [name for name in names if name not in by_name]
    if missing:
        shown = ", ".join(f"{place} ({card.uuid})" for place, card in enumerate(cards)) or "none"
        raise AblateError(f"{wish} names {', '.join(missing)}, but the cards visible here are: {shown}")
    return list({by_name[name].uuid: by_name[name] for name in names}.values())


def taken(slots: Iterable[Slot], cards: Iterable[Card], at_work: Sequence[Attempt]) -> Mapping[str, Taken]:
    """-> name of a slot: what others hold of its card. `at_work`: attempts that are not others."""
    by_uuid = {card.uuid: card for card in cards}
    ours = {supervisor.pid for attempt in at_work if (supervisor := supervisor_of(attempt))}
    used = {gpu for attempt in at_work for gpu in _cards_of(attempt)}
    here = ((slot, by_uuid[slot.gpu]) for slot in slots if slot.gpu in by_uuid)
    others_on = ((slot, _others(card, ours, is_used=card.uuid in used)) for slot, card in here)
    return {slot.name: others for slot, others in others_on if others}


def _cards_of(attempt: Attempt) -> Sequence[str]:
    slot = (attempt.request or {}).get("slot", {})
    return slot.get("gpus") or list(filter(None, [slot.get("gpu")]))


def _others(card: Card, ours: set[int], *, is_used: bool) -> Taken | None:
    strange = [holder for holder in card.holders if not _is_of(holder, ours)]
    if is_used:  # one that cannot be seen from here may be our own, by its number in another container
        strange = [holder for holder in strange if holder.user]
    held = sum(holder.num_bytes for holder in strange)
    if not is_used:
        held = max(held, card.total_bytes - card.free_bytes)
    if held <= NEGLIGIBLE * card.total_bytes:
        return None
    who = ", ".join(map(str, strange)) or f"a process that cannot be seen from here ({held >> 20:,} MiB)"
    return Taken(min(SHARES, math.ceil(held * SHARES / card.total_bytes)), f"card {card.number} is in use by {who}")


def _is_of(holder: Holder, sessions: set[int]) -> bool:
    try:
        return os.getsid(holder.pid) in sessions
    except OSError:
        return False


def _num_cores() -> int:
    """Cores that this process may use: a container's quota counts."""
    num_cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return num_cores
    return num_cores if quota == "max" else max(1, min(num_cores, int(quota) // int(period)))
