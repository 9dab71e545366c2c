"""Stages as the scheduler sees them: what each asks for, waits for and costs."""

from collections.abc import Callable
from typing import TypeAlias

from ablate.execution.task_graph import Task
from ablate.machine.slots import Work
from ablate.planning.cost_model import START_S
from ablate.store.kind import KINDS, MANY
from ablate.store.memory import Held
from ablate.store.stage import Stage

Label: TypeAlias = Callable[[Stage], str]
"""-> what a reader calls a stage."""
Cost: TypeAlias = Callable[[Stage], float]
"""-> seconds, as planned."""
Memory: TypeAlias = Callable[[Stage], tuple[int | None, int] | Held]
"""-> an estimate (None: not known), and what it cannot do with less; bytes. Of a stage that can give way, all of it."""


def task_of(stage: Stage, cost_s: Cost, memory: Memory = lambda _: (None, 0)) -> Task:
    """-> a stage, as far as its turn is concerned."""
    kind = KINDS[stage.kind]
    work: Work = "online" if kind.is_online else "light" if kind.is_light else "heavy"
    held = memory(stage)
    seconds, cards = cost_s(stage), kind.cards(stage.settings)
    return Task(
        key=stage.key,
        kind=stage.kind,
        name=stage.folder,
        work=work,
        needs=tuple(dict.fromkeys(needed.key for needed in stage.inputs.values())),
        cost_s=seconds,
        aids=tuple(aid.key for aid in stage.aids.values()),
        memory_bytes=held[0],
        least_bytes=held[1],
        cards=1 if cards == "auto" else cards,
        most_cards=MANY if cards == "auto" else cards,
        can_share=kind.most_cards(stage.settings) if cards == "auto" else 1,
        held=held if isinstance(held, Held) else None,
        start_s=min(START_S, seconds),
        is_verdict=kind.is_verdict,
    )


def misfit(task: Task) -> str:
    """-> why no slot can hold a stage."""
    if not task.least_bytes:
        return f"there is no place for {task.work} work here"
    return f"its weights alone take {task.least_bytes / 1e9:.1f} GB, and nothing here has so much memory"
