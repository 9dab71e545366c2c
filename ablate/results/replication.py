"""Our scores beside published ones of the same recipe: the difference with both errors, and what was not alike."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ablate.core.values import EXTENSION, Frozen, fields_of, identity
from ablate.results.aligned_rows import align_rows
from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.study.cells import Row, used_parts
from ablate.study.data_settings import Data
from ablate.study.evaluation_settings import Evaluate
from ablate.study.layer import partial
from ablate.study.published import Published, Theirs, read_published
from ablate.study.schema import Study
from ablate.study.training_recipes import Distill, Finetune

PARTS: Mapping[str, type[Frozen]] = {
    "data": Data,
    "finetune_teacher": Finetune,
    "finetune_student": Finetune,
    "distill": Distill,
    "evaluate": Evaluate,
}


OF_A_METRIC = ("n", "task version")
"""What is not alike by the metric; all else is a setting of the row."""


class Unlike(NamedTuple):
    """One thing that is not as it was where a score was published."""

    what: str
    """A setting, or `n`, or `task version`."""
    ours: Any
    theirs: Any = None
    is_told: bool = True
    """Whether the file says what theirs was; else it is what published tables are usually made with."""


class Replication(NamedTuple):
    """One row by one metric, ours and theirs."""

    row: RowResult
    metric: Metric
    value: float
    stderr: float | None
    """Of ours: over questions; with several seeds of questions and training."""
    theirs: Theirs
    unlike: tuple[Unlike, ...]

    @property
    def difference(self) -> float:
        """Ours less theirs."""
        return self.value - self.theirs.value

    @property
    def se(self) -> float | None:
        """Of the difference: sqrt(ours^2 + theirs^2), as of two independent samples.

        The questions are mostly the same, so it is rather too large; that theirs is of one training, whose seed is
        noise too, makes it too small.
        """
        known = self.stderr is not None and self.theirs.stderr is not None
        return math.hypot(self.stderr or 0.0, self.theirs.stderr or 0.0) if known else None


def replications_of(results: Results, ablation: AblationResult) -> tuple[Replication, ...]:
    """-> one for each row that is done and column of a table for which a score was published."""
    published = read_published(results.study.published)
    return tuple(_replications(results.study, ablation, published)) if published else ()


def records(results: Results) -> Iterator[dict[str, Any]]:
    """-> for results.json."""
    for ablation in results.ablations:
        for one in replications_of(results, ablation):
            yield {
                "ablation": ablation.name,
                "pair": one.row.row.setting.pair,
                "row": one.row.row.name,
                "metric": str(one.metric),
                "value": one.value,
                "stderr": one.stderr,
                "seeds": len(one.row.done),
                "published": one.theirs.value,
                "published_stderr": one.theirs.stderr,
                "difference": one.difference,
                "difference_se": one.se,
                "unlike": [difference.what for difference in one.unlike],
            }


def unlike(published: Published, row: Row, study: Study) -> tuple[Unlike, ...]:
    """-> settings that are not those of the published scores, of the parts that the row is made from."""
    theirs, setting = published.settings(row.setting.pair), row.setting
    usual = Study.model_fields["dtype"].default
    differences = [Unlike("rehearsal", "a rehearsal", is_told=False)] if study.rehearsal else []
    for part in (name for name in PARTS if name in used_parts(row)):
        parsed = partial(PARTS[part]).model_validate(theirs[part])
        differences += _differing(theirs[part], getattr(setting, part), parsed, part)
    for part in ("data", "evaluate"):
        limit = getattr(setting, part).limit
        if part in used_parts(row) and "limit" not in theirs[part] and limit is not None:
            differences.append(Unlike(f"{part}.limit", limit, is_told=False))
    differences += _unusual_asking(setting.evaluate, theirs["evaluate"])
    for dtype in dict.fromkeys((setting.dtype, setting.evaluate.dtype)):
        if dtype != (theirs["dtype"] or usual):
            differences.append(Unlike("dtype", dtype, theirs["dtype"], theirs["dtype"] is not None))
    return tuple(differences)


def _unusual_asking(evaluate: Evaluate, theirs: Mapping[str, Any]) -> Iterator[Unlike]:
    """-> what is not as published tables are usually made, where theirs is not told: a chat template, a task's own."""
    written, later = evaluate.model_dump(), identity(evaluate).keys() & {*fields_of(Evaluate, EXTENSION)}
    for name in sorted(later - theirs.keys()):
        yield Unlike(f"evaluate.{name}", written[name], is_told=False)
    if own := [task for task in written["tasks"] if isinstance(task, Mapping) and "tasks" not in theirs]:
        yield Unlike("evaluate.tasks", own, is_told=False)


def _differing(written: Mapping[str, Any], ours: Frozen, theirs: Frozen, path: str) -> Iterator[Unlike]:
    """`written`: what the file says of a recipe; `theirs`: the same, parsed."""
    for name, value in written.items():
        one, other = getattr(ours, name), getattr(theirs, name)
        if isinstance(value, Mapping) and isinstance(one, Frozen) and name != "loss":
            yield from _differing(value, one, other, f"{path}.{name}")
        elif _plain(one) != _plain(other):
            yield Unlike(f"{path}.{name}", _plain(one), _plain(other))


def _plain(value: Any) -> Any:
    """Names of modules are a set."""
    if isinstance(value, tuple) and all(isinstance(one, str) for one in value):
        return tuple(sorted(value))
    return value.model_dump(mode="json") if isinstance(value, Frozen) else value


def _replications(study: Study, ablation: AblationResult, published: Published) -> Iterator[Replication]:
    for row in ablation.rows:
        theirs = published.scores(row.row, ablation.spec.set) if row.done else {}
        settings = unlike(published, row.row, study) if theirs else ()
        for metric in ablation.columns:
            score = row.score(metric)
            if score and math.isfinite(score.value) and str(metric) in theirs:
                beside = theirs[str(metric)]
                asked = (*_questions(row, metric, beside), *_version(row, metric, published))
                yield Replication(row, metric, score.value, _error(row, metric), beside, (*settings, *asked))


def _error(row: RowResult, metric: Metric) -> float | None:
    """-> lm-eval's of one seed; of several that of their mean, training noise in it; None where it has none."""
    score = row.score(metric)
    if score is None or score.seeds == 1:
        return score.stderr if score else None
    aligned = align_rows([row], metric)
    return aligned.contrast([1.0]).se if aligned.rows else None


def _questions(row: RowResult, metric: Metric, theirs: Theirs) -> Iterator[Unlike]:
    n = row.done[0].scores[metric].n
    if theirs.n is not None and n != theirs.n:
        yield Unlike("n", n, theirs.n)


def _version(row: RowResult, metric: Metric, published: Published) -> Iterator[Unlike]:
    ours = row.done[0].evaluation["tasks"][metric.task].get("version")
    theirs = published.about.versions.get(metric.task)
    if theirs is not None and str(ours) != str(theirs):
        yield Unlike("task version", ours, theirs)
