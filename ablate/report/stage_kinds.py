"""Kinds of stages as pictures and tables show them: in the order of the work, each of one color everywhere."""

from ablate.report import plot_style
from ablate.store.kind import KINDS, words_by_kind
from ablate.store.stage import Stage

WORDS = words_by_kind()
WORK = tuple(kind for kind in WORDS if KINDS[kind].is_work)
"""What a person would count as work."""
COLORS = {
    kind: plot_style.PALETTE[number % len(plot_style.PALETTE)]
    for number, kind in enumerate(sorted(WORDS, key=lambda kind: WORDS[kind].is_rare))
}


def is_fetched(stage: Stage) -> bool:
    """Whether a stage brought something here: a model, a data set, task files."""
    return KINDS[stage.kind].is_online


def is_evaluation(stage: Stage) -> bool:
    return KINDS[stage.kind].is_verdict
