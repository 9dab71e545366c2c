"""What went wrong with a row's training or makes its scores mean little: each a mark of its own."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal, NamedTuple, TypeAlias

from ablate.results.aligned_rows import align_rows
from ablate.results.chance import chance_level
from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.loss_ends import LossEnds, in_errors, loss_ends
from ablate.results.paired import Contrast
from ablate.results.question_scores import NotComparable, mean
from ablate.results.verdicts import sign_of

MarkKind: TypeAlias = Literal["collapsed", "diverged", "over-fitted", "chance"]

LOST = 0.5
"""Of what a model has above chance: who has lost more has collapsed."""
CLEAR = 4.0
"""Standard errors of means over steps, which are not quite independent."""
LEAST_RISE = 0.1
"""Of a training's loss, above where it began."""
LEAST_EXCESS = 0.02
"""Of a held-out loss, above the control's: no error of it is known."""


class Mark(NamedTuple):
    """One row's."""

    row: RowResult
    kind: MarkKind
    metric: Metric | None = None
    """By which it is seen; None: by its losses."""
    value: float | None = None
    """That shows it: a score, a training's loss at the end, a held-out class loss. None: a loss that is no number."""
    beside: float | None = None
    """What it is held against: see `marks_of`."""
    against: RowResult | None = None
    """Whose score or loss that is; None: its own, or chance level."""
    low: float | None = None
    """Of the 95 % interval of a score."""
    high: float | None = None


def marks_of(results: Results, ablation: AblationResult) -> tuple[Mark, ...]:
    """-> in table order, each row's at most once a kind and metric.

    `diverged`: a loss that is no number; or the training's loss over its last tenth is above that of its first steps
    (`beside`), by 10 % and by 4 standard errors. Not of a student that writes its own answers, whose loss may rise.

    `collapsed`: by the primary metric it has lost more than half of what the untrained model (`against`, `beside`; the
    control, where that is in no row) scores above chance, told at 95 %. Chance counts as 0 where it is not known.

    `chance`: the 95 % interval of a score holds what guessing would score (`beside`), or lies below. Not told of an
    untrained student, nor of a row that has collapsed.

    `over-fitted`: the class loss of its training ends below that of the control's, by 4 standard errors, and its
    held-out class loss is above the control's (`beside`), by 2 %; of equal data. Held-out losses are known of the end
    of a training alone.
    """
    name = f"marks/{ablation.name}"
    if name not in results.memo:
        results.memo[name] = tuple(mark for row in ablation.rows for mark in _marks(results, ablation, row))
    marks: tuple[Mark, ...] = results.memo[name]
    return marks


def records(results: Results) -> Iterator[dict[str, Any]]:
    """-> for results.json."""
    for ablation in results.ablations:
        for mark in marks_of(results, ablation):
            yield {
                "ablation": ablation.name,
                "pair": mark.row.row.setting.pair,
                "row": mark.row.row.name,
                "kind": mark.kind,
                "metric": str(mark.metric) if mark.metric else None,
                "value": mark.value,
                "beside": mark.beside,
                "against": mark.against.row.name if mark.against else None,
                "low": mark.low,
                "high": mark.high,
            }


def _marks(results: Results, ablation: AblationResult, row: RowResult) -> Iterator[Mark]:
    yield from _diverged(row)
    collapsed = list(_collapsed(results, ablation, row))
    yield from collapsed or _at_chance(results, ablation, row)
    yield from _over_fitted(ablation, row)


def _writes_its_own(row: RowResult) -> bool:
    return row.row.model == "distill" and row.row.setting.distill.writes_in_training


def _diverged(row: RowResult) -> Iterator[Mark]:
    ends = [one for cell in row.cells if (one := loss_ends(cell.curve, "loss"))]
    if any(cell.state == "diverged" for cell in row.cells) or not all(one.is_finite for one in ends):
        yield Mark(row, "diverged")
        return
    risen = [] if _writes_its_own(row) else [one for one in ends if _has_risen(one)]
    if risen:
        worst = max(risen, key=lambda one: one.end - one.beginning)
        yield Mark(row, "diverged", value=worst.end, beside=worst.beginning)


def _has_risen(ends: LossEnds) -> bool:
    return ends.rise > CLEAR and ends.end - ends.beginning > LEAST_RISE * abs(ends.beginning)


def _collapsed(results: Results, ablation: AblationResult, row: RowResult) -> Iterator[Mark]:
    metric, other = ablation.primary, _before(ablation, row)
    if metric is None or other is None or not (row.is_trained and row.done) or sign_of(row, metric) < 0:
        return
    beside = other.score(metric)
    with suppress(NotComparable):
        chance = chance_level(results, row.done[0], metric) or 0.0
        # score - chance - LOST * (other's score - chance)
        lost = _contrast(ablation, (row, 1.0), (other, -LOST), metric=metric)
        if beside and lost.interval()[1] < (1 - LOST) * chance:
            own = _contrast(ablation, (row, 1.0), metric=metric)
            yield Mark(row, "collapsed", metric, own.value, beside.value, other, *own.interval())


def _before(ablation: AblationResult, row: RowResult) -> RowResult | None:
    """-> the model as it was before it was trained, else the control."""
    role = "teacher" if row.row.model.startswith("teacher") else "student"
    of_pair = [other for other in ablation.rows if other.row.setting.pair == row.row.setting.pair and other.done]
    untrained = next((other for other in of_pair if other.row.model == f"{role}/baseline"), None)
    control = ablation.control_of(row.row)
    return untrained or (control if control is not row else None)


def _at_chance(results: Results, ablation: AblationResult, row: RowResult) -> Iterator[Mark]:
    for metric in ablation.columns if row.done and row.row.model != "student/baseline" else ():
        chance = chance_level(results, row.done[0], metric)
        with suppress(NotComparable):
            own = _contrast(ablation, (row, 1.0), metric=metric) if chance is not None else None
            if own and chance is not None and own.interval()[0] <= chance:
                yield Mark(row, "chance", metric, own.value, chance, None, *own.interval())


def _contrast(ablation: AblationResult, *rows: tuple[RowResult, float], metric: Metric) -> Contrast:
    """-> the sum of weight * score with its error. Raises NotComparable where it is no mean over the same questions.

    Beside the control where that was asked alike, for those pairs are read for the tables too.
    """
    control = ablation.control_of(rows[0][0].row)
    for weighted in ([(control, 0.0), *rows] if control else rows, rows):
        aligned = align_rows([row for row, _ in weighted], metric)
        if not aligned.left_out:
            return aligned.contrast([weight for _, weight in weighted])
    raise NotComparable(aligned.left_out[0][1])


def _over_fitted(ablation: AblationResult, row: RowResult) -> Iterator[Mark]:
    control = ablation.control_of(row.row)
    if control is None or control is row or not _is_same_data(row, control):
        return
    held_out, beside = (_held_out(one) for one in (row, control))
    own, others = (_last_class_losses(one) for one in (row, control))
    if not (held_out and beside and own and others):
        return
    is_above = mean(held_out) > mean(beside) * (1 + LEAST_EXCESS)
    if is_above and in_errors(own, others) < -CLEAR:
        yield Mark(row, "over-fitted", value=mean(held_out), beside=mean(beside), against=control)


def _is_same_data(row: RowResult, control: RowResult) -> bool:
    """Whether both trained on the data's own answers, of the same data."""
    distilled = [one.row.setting.distill for one in (row, control) if one.row.model == "distill"]
    is_student = not control.row.model.startswith("teacher") and not row.row.model.startswith("teacher")
    is_of_data = all(one.answers == "dataset" and not one.writes_in_training for one in distilled)
    return is_student and is_of_data and row.row.setting.data == control.row.setting.data


def _held_out(row: RowResult) -> list[float]:
    return [losses["class_loss"] for losses in row.held_out.values() if "class_loss" in losses]


def _last_class_losses(row: RowResult) -> list[float]:
    """-> of the last tenth of steps of each seed."""
    ends = (loss_ends(cell.curve, "class_loss") for cell in row.cells)
    return [loss for one in ends if one and one.is_finite for loss in one.last]
