"""Learning rates that nobody can mean: a minus or an exponent that was left out."""

from collections.abc import Iterator
from typing import Any, Final

from ablate.core.yaml import Loc
from ablate.study.schema import Study
from ablate.study.words import Finding

HIGHEST: Final = 1.0
"""AdamW moves a weight by about the learning rate a step: above, no weight is left of what was learnt."""
HIGH: Final = 0.1
"""Above, a reader is warned."""


def rate_findings(study: Study) -> Iterator[Finding]:
    """-> every learning rate of the study's recipes that is too high; those of axes are told with their values."""
    recipes: dict[Loc, dict[str, Any]] = {("train",): study.train, ("finetune",): study.finetune}
    recipes[("distill",)] = study.distill
    for name, pair in study.pairs.items():
        recipes[("pairs", name, "distill")] = pair.distill
        recipes[("pairs", name, "teacher", "finetune")] = pair.teacher.finetune
        recipes[("pairs", name, "student", "finetune")] = pair.student.finetune
    for loc, recipe in recipes.items():
        yield from too_high((*loc, "lr"), recipe.get("lr"))


def too_high(target: Loc, rate: Any) -> Iterator[Finding]:
    """-> what is wrong with a learning rate at a place of a study; nothing where another setting stands there."""
    if target[-1] == "lr" and isinstance(rate, int | float) and rate > HIGHEST:
        path = ".".join(map(str, target))
        message = f"{path}: {rate:g} is no learning rate: AdamW would move every weight by about {rate:g} a step"
        yield Finding(target, f"{message}. {_meant(rate)}")


def _meant(rate: float) -> str:
    mantissa, _, exponent = f"{rate:e}".partition("e")
    number = f"{float(mantissa):g}"
    if int(exponent) >= 3:
        return f"Is {number}e-{int(exponent)} meant?"
    return f"Is {number}e-5 meant, or {number}e-4? {HIGHEST:g} is the most that is taken"
