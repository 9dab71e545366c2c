"""How many cards hold one copy of a stage's models, where one card is too small for them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ablate.execution.task_graph import Task
from ablate.machine.slots import Slot
from ablate.planning.card_verdicts import SHARE, verdict


def with_needs(tasks: Sequence[Task], slots: Sequence[Slot]) -> list[Task]:
    """-> the tasks as cards of these sizes and numbers have them."""
    nums = _cards_together(slots)
    return [replace(task, least_cards=least) if (least := _least_cards(task, nums)) else task for task in tasks]


def _cards_together(slots: Sequence[Slot]) -> dict[int, int]:
    """-> bytes of a card -> how many such cards one machine has for a stage."""
    cards = [slot for slot in slots if slot.is_card and slot.memory_bytes and not slot.gpus]
    alike = Counter((slot.memory_bytes or 0, slot.profile, slot.model) for slot in cards if slot.can_join)
    nums: dict[int, int] = {}
    of_jobs = ((slot.memory_bytes or 0, slot.num_gpus) for slot in cards)
    for memory_bytes, num in (*of_jobs, *((memory, num) for (memory, _, _), num in alike.items())):
        nums[memory_bytes] = max(nums.get(memory_bytes, 1), num)
    return nums


def _least_cards(task: Task, nums: dict[int, int]) -> tuple[tuple[int, int], ...]:
    """-> of the cards that are too small for the stage as the study says it, those on which it fits all the same."""
    held = task.held
    if held is None or not held.ways:
        return ()
    small = {memory: num for memory, num in nums.items() if held.estimate > SHARE * memory}
    verdicts = {memory: verdict(held, min(num, task.most_cards), memory) for memory, num in small.items()}
    return tuple((memory, fits.num_cards) for memory, fits in sorted(verdicts.items()) if fits.is_fit)
