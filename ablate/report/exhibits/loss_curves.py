"""The tutorial's three panels: kd_loss, class_loss and loss of every training of an ablation."""

from collections.abc import Iterator, Mapping, Sequence

from ablate.report import plot_style
from ablate.report.exhibits.base import EXHIBITS, Piece, joined
from ablate.report.exhibits.curve_panels import Sheet, drawn
from ablate.report.exhibits.curves import ANSWERS, LOSSES, MOST_RAW, Curve, betas_text, read_curve
from ablate.report.exhibits.loss_table import measures_table
from ablate.report.formatting import listed, short, whole_recipe_label
from ablate.report.labels import shortened
from ablate.report.words import say
from ablate.results.collect import AblationResult, Results
from ablate.study.schema import Pair
from ablate.study.training_recipes import Distill

REFERENCE_DASHES = ((0, (4, 2)), (0, (1, 1.5)), (0, (8, 3)), (0, (4, 2, 1, 2)))
"""One a pair."""


@EXHIBITS.register("losses", order=110)
def loss_curves(results: Results, ablation: AblationResult) -> Piece | None:
    """-> figures/<ablation>-losses.png, and the three panels of the page; a fourth of hidden-state losses."""
    curves = curves_of(ablation, results.study.pairs)
    if not any(not curve.is_reference for curve in curves):
        return None
    notes = {"loss": say("losses.no_scale")} if _is_unlike(ablation) else {}
    sheet = Sheet(f"{ablation.name}-losses", curves, _losses(curves), notes)
    picture = drawn(sheet, say("losses.title", title=ablation.title), caption(ablation, curves))
    return joined(picture, measures_table(sheet, ablation.title, sheet.measures), fold=say("fold.losses"))


def curves_of(ablation: AblationResult, pairs: Mapping[str, Pair]) -> list[Curve]:
    """-> a curve for every distillation that has a step, and dashed the fine-tuned students, each pair its own."""
    distilled = [row for row in ablation.rows if row.row.model == "distill"]
    tuned = [row for row in ablation.rows if row.row.model == "student/finetuned"]
    curves: list[Curve | None] = []
    labels = shortened([whole_recipe_label(row.row.label) for row in distilled], 60)
    for number, (row, label) in enumerate(zip(distilled, labels, strict=True)):
        curves += [read_curve(label, plot_style.line_style(number), cell) for cell in row.cells]
    several_pairs = len({row.row.setting.pair for row in ablation.rows}) > 1
    for number, row in enumerate(tuned):
        style = {"color": plot_style.MUTED, "linestyle": REFERENCE_DASHES[number % len(REFERENCE_DASHES)]}
        pair = row.row.setting.pair
        label = f"fine-tuning alone, {short(pairs[pair].label or pair, 40)}" if several_pairs else "fine-tuning alone"
        curves += [read_curve(label, style, cell, is_reference=True) for cell in row.cells]
    return [curve for curve in curves if curve]


def caption(ablation: AblationResult, curves: Sequence[Curve]) -> str:
    """What a reader must know to read the panels."""
    return " ".join([averages_text(curves), *_caution(ablation, curves), *unfinished(curves)])


def _caution(ablation: AblationResult, curves: Sequence[Curve]) -> Iterator[str]:
    if any("class_loss" in curve.cell.held_out for curve in curves):
        yield say("figures.held_out")
    if any(curve.is_reference for curve in curves):
        yield say("losses.reference")
    if _is_unlike(ablation):
        yield say("losses.unlike")
        if not any(map(_has_no_labels, curves)):
            yield say("losses.compare")
    if _has_other_answers(ablation):
        yield say("losses.other_answers")
        if any(row.held_out for row in ablation.rows):
            yield say("losses.held_out")
    if without := dict.fromkeys(curve.label for curve in curves if _has_no_labels(curve)):
        yield say("losses.no_labels", rows=listed(without))


def averages_text(curves: Sequence[Curve]) -> str:
    """-> what the lines are."""
    if not any(curve.beta for curve in curves):
        return say("losses.every_step")
    faint = [say("losses.faint")] if len(curves) <= MOST_RAW else []
    return " ".join([say("losses.averages", betas=betas_text(curves)), *faint])


def unfinished(curves: Sequence[Curve]) -> list[str]:
    """-> which curves are not of a training that is done, and why."""
    states = [(curve.label, curve.cell.state) for curve in curves if not curve.cell.is_done]
    return [say("losses.state", row=row, state=state) for row, state in dict.fromkeys(states)]


def _losses(curves: Sequence[Curve]) -> list[str]:
    """-> those with a panel: where no answer has a label, there is no class_loss."""
    is_unlabelled = not any(curve.is_measured("class_loss") for curve in curves)
    losses = [loss for loss in LOSSES if loss != "class_loss" or not is_unlabelled]
    return losses + ["feature_loss"] * any(curve.is_measured("feature_loss") for curve in curves)


def _has_no_labels(curve: Curve) -> bool:
    is_of_answers = any(curve.is_measured(measure) for measure in ANSWERS)
    return is_of_answers and not curve.is_measured("class_loss")


def _is_unlike(ablation: AblationResult) -> bool:
    return len({_scale(recipe) for recipe in _recipes(ablation)}) > 1


def _scale(recipe: Distill) -> tuple[object, ...]:
    own = (recipe.objective, repr(recipe.policy_gradient), repr(recipe.student_loss))
    beside = (recipe.teacher_mean, repr(recipe.features))
    return (recipe.kd_ratio, repr(recipe.loss), recipe.temperature, recipe.scale_by_t2, *own, *beside)


def _has_other_answers(ablation: AblationResult) -> bool:
    return len({(recipe.answers, recipe.student_fraction) for recipe in _recipes(ablation)}) > 1


def _recipes(ablation: AblationResult) -> list[Distill]:
    return [row.row.setting.distill for row in ablation.rows if row.row.model == "distill"]
