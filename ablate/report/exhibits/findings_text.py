"""What an ablation has found, in sentences: written from verdicts, never from whose number is the highest."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from ablate.report.exhibits.words import decimals, listed, metric_name, number, plural, short
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.verdicts import Finding, Findings, Verdict, by_verdict, findings_of

Grouped: TypeAlias = Mapping[Verdict, list[Finding]]
SAID: dict[Verdict, str] = {"better": "better than", "worse": "worse than", "equivalent": "equivalent to"}


def answers(results: Results, ablation: AblationResult) -> list[str]:
    """-> sentences; none before anything can be compared."""
    found = findings_of(results, ablation)
    if not found.all:
        return []
    metrics = ablation.columns
    primary = _primary(results, metrics)
    grouped = by_verdict(found.all)
    return [
        *_clear(grouped, metrics, primary),
        *_suggestive(grouped.get("suggestive", []), metrics, primary),
        *_rest(found, grouped, metrics, primary),
        *_refused(grouped.get("not comparable", [])),
        *_one_seed(found),
    ]


def _primary(results: Results, metrics: Sequence[Metric]) -> Metric:
    """-> the metric that the study names, else the first."""
    named = [metric for metric in metrics if str(metric) == results.study.report.primary]
    return (named or list(metrics))[0]


def _clear(grouped: Grouped, metrics: Sequence[Metric], primary: Metric) -> Iterator[str]:
    for verdict, words in SAID.items():
        for metric, found in _by_metric(grouped.get(verdict, []), primary):
            names = listed(_named(one) for one in found)
            yield f"By {metric_name(metric, metrics)}, {names} {_is(found)} {words} the control."


def _suggestive(found: Sequence[Finding], metrics: Sequence[Metric], primary: Metric) -> Iterator[str]:
    for is_ahead, words in ((True, "ahead of"), (False, "behind")):
        for metric, some in _by_metric([one for one in found if one.is_ahead is is_ahead], primary):
            names = listed(_named(one) for one in some)
            name = metric_name(metric, metrics)
            yield f"By {name}, {names} {_is(some)} {words} the control; this is suggestive only."


def _rest(found: Findings, grouped: Grouped, metrics: Sequence[Metric], primary: Metric) -> Iterator[str]:
    rest = [one for one in grouped.get("inconclusive", []) if not math.isnan(one.p_holm)]
    unknown = len(grouped.get("inconclusive", [])) - len(rest)
    if unknown:
        yield f"{plural(unknown, 'comparison')} of one question, or of one cluster of them: no error is known."
    if not rest:
        return
    if len(rest) == found.size:
        yield f"No row can be told from the control by any metric ({plural(found.size, 'comparison')})."
    else:
        yield f"The other {plural(len(rest), 'comparison')} of {found.size} cannot be told from no difference."
    visible = found.visible.get(primary)
    if visible is not None:
        name, places = metric_name(primary, metrics), decimals([visible / 2.8])
        yield f"By {name}, a difference under about {number(visible, places)} would not have been seen."


def _refused(found: Sequence[Finding]) -> Iterator[str]:
    if found:
        reasons = listed(dict.fromkeys(one.why for one in found))
        yield f"{plural(len(found), 'comparison')} cannot be made: {reasons}."


def _one_seed(found: Findings) -> Iterator[str]:
    rows = found.of_questions_only
    if not found.has_seed_noise:
        yield "One seed: another one could change every one of these numbers by more than the noise told here."
    elif rows:
        names = listed(short(row.row.label.removeprefix("KD, "), 60) for row in rows)
        yield f"Of {names} one seed is done: another one could change these numbers by more than the noise told here."


def _by_metric(found: Sequence[Finding], primary: Metric) -> Iterator[tuple[Metric, list[Finding]]]:
    """The primary metric first, the others as in the table."""
    metrics = sorted(dict.fromkeys(one.metric for one in found), key=lambda metric: metric != primary)
    for metric in metrics:
        yield metric, [one for one in found if one.metric == metric]


def _named(one: Finding) -> str:
    """-> `lr=0.001 (+0.012, 95 % +0.003 to +0.021)`: the interval that the verdict is read from."""
    assert one.contrast
    level, *ends = one.deciding
    places = decimals([one.contrast.se])
    value, low, high = (number(x, places, is_signed=True) for x in (one.contrast.value, *ends))
    return f"{short(one.row.row.label.removeprefix('KD, '), 60)} ({value}, {level} {low} to {high})"


def _is(found: Sequence[Finding]) -> str:
    return "is" if len(found) == 1 else "are"
