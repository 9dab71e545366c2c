"""What nobody would expect of scores: a teacher behind its student, a row that ties its control, metrics at odds."""

from collections.abc import Iterator

from ablate.report.answer_facts import Facts, facts_of
from ablate.report.axis_text import subject_of
from ablate.report.formatting import listed
from ablate.report.mark_text import MANY
from ablate.report.metric_names import metric_name
from ablate.report.row_words import reference_name, row_words
from ablate.report.score_text import score_text
from ablate.report.words import capitalised, say, uncapitalised
from ablate.results.aligned_rows import align_rows
from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.gap_recovered import gap_of
from ablate.results.marks import marks_of
from ablate.results.verdicts import findings_of, sign_of


def oddities(results: Results) -> list[str]:
    """-> sentences by the primary metric, each once: metrics at odds first, then teachers, then ties."""
    asked = [(ablation, ablation.primary) for ablation in results.ablations if ablation.primary]
    texts = [text for one in asked for text in _against(facts_of(results, one[0]), one[1])]
    texts += [text for one in asked for text in _harm(results, *one)]
    for name in ("teacher/finetuned", "teacher/baseline"):
        texts += [text for one in asked for row in one[0].rows for text in _teacher(results, one[0], row, one[1], name)]
    ties: dict[frozenset[str], str] = {}
    for ablation, metric in asked:
        ties = dict(_ties(results, ablation, metric)) | ties
    return list(dict.fromkeys([*texts, *ties.values()]))


def guesses(results: Results) -> tuple[list[str], frozenset[Metric]]:
    """-> metrics by which many rows do no better than guessing, said once; and those metrics."""
    runs: dict[Metric, set[frozenset[str]]] = {}
    names: dict[Metric, str] = {}
    for ablation in results.ablations:
        for mark in marks_of(results, ablation):
            if mark.kind == "chance" and mark.metric:
                runs.setdefault(mark.metric, set()).add(mark.row.run)
                names[mark.metric] = metric_name(mark.metric, ablation.columns)
    many = {metric: len(own) for metric, own in runs.items() if len(own) >= MANY}
    return [say("odd.chance", num=num, metrics=names[metric]) for metric, num in many.items()], frozenset(many)


def _harm(results: Results, ablation: AblationResult, metric: Metric) -> Iterator[str]:
    """-> models whose fine-tuning has clearly made them worse, by the 95 % interval of that difference alone."""
    for tuned in ablation.rows:
        role, _, state = tuned.row.model.partition("/")
        pair = tuned.row.setting.pair
        alike = [row for row in ablation.rows if (row.row.model, row.row.setting.pair) == (f"{role}/baseline", pair)]
        if state != "finetuned" or tuned.is_replicate or not alike or not (tuned.done and alike[0].done):
            continue
        aligned = align_rows([tuned, alike[0]], metric)
        score, beside = tuned.score(metric), alike[0].score(metric)
        if aligned.left_out or not score or not beside:
            continue
        ends = aligned.contrast([1.0, -1.0]).interval()
        if max(sign_of(tuned, metric) * end for end in ends) < 0:
            scores = {"score": score_text(metric, score.value), "beside": score_text(metric, beside.value)}
            place = say("next.of_pair", pair=pair) if len(results.study.pairs) > 1 else ""
            yield say("odd.harm", role=role, pair=place, metric=metric_name(metric, ablation.columns), **scores)


def _against(facts: Facts, metric: Metric) -> Iterator[str]:
    """-> metrics by which the main question has the other clear answer."""
    for first in (own[0] for pair in facts.pairs if (own := facts.own(metric, pair))):
        gain = facts.gain(first)
        same = (first.kind, first.axis, first.plus, first.minus, first.pair)
        others = [one for one in facts.effects if (one.kind, one.axis, one.plus, one.minus, one.pair) == same]
        clear = [other for one in others if (other := facts.gain(one)).is_clear]
        opposite = [other.name for other in clear if gain.is_clear and other.is_ahead is not gain.is_ahead]
        if opposite:
            situation = "odd.harms" if gain.is_ahead else "odd.helps"
            subject = capitalised(subject_of(first))
            yield say(situation, subject=subject, metric=gain.name, metrics=listed(opposite))


def _teacher(results: Results, ablation: AblationResult, row: RowResult, metric: Metric, model: str) -> Iterator[str]:
    """-> that the one teacher of a distilled row scores no better than the student alone."""
    gap = gap_of(results, ablation, row, metric) if row.row.model == "distill" else None
    if gap is None or gap.control is None or len(gap.teachers) != 1 or not gap.ahead <= 0:
        return
    if gap.teachers[0].row.model != model:
        return
    score, beside = gap.teachers[0].score(metric), gap.control.score(metric)
    if score and beside:
        pair = row.row.setting.pair
        yield say(
            "odd.teacher",
            teacher=uncapitalised(reference_name(gap.teachers[0].row)).removeprefix("the "),
            pair=say("next.of_pair", pair=pair) if len(results.study.pairs) > 1 else "",
            control=reference_name(gap.control.row),
            metric=metric_name(metric, ablation.columns),
            score=score_text(metric, score.value),
            beside=score_text(metric, beside.value),
        )


def _ties(results: Results, ablation: AblationResult, metric: Metric) -> Iterator[tuple[frozenset[str], str]]:
    """-> by what work the row is: it may stand in several tables."""
    for one in findings_of(results, ablation).all:
        control, score = ablation.control_of(one.row.row), one.row.score(metric)
        if one.metric == metric and one.contrast and one.contrast.value == 0 and control and score:
            situation = "odd.same" if one.contrast.num_differing == 0 or one.contrast.se == 0 else "odd.tie"
            values = {"control": reference_name(control.row), "metric": metric_name(metric, ablation.columns)}
            row = capitalised(row_words(one.row))
            yield one.row.run, say(situation, row=row, score=score_text(metric, score.value), **values)
