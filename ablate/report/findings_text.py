"""The sentences over each ablation: what its verdicts come to, never whose number is the highest."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from ablate.report.formatting import decimals, interval_text, listed, number, plural, recipe_label
from ablate.report.metric_names import metric_name
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.verdicts import Finding, Findings, Verdict, by_verdict, findings_of

Grouped: TypeAlias = Mapping[Verdict, list[Finding]]
RELATIONS: dict[Verdict, str] = {"better": "better than", "worse": "worse than", "equivalent": "equivalent to"}


def answers(results: Results, ablation: AblationResult) -> list[str]:
    """-> sentences; none before anything can be compared."""
    findings = findings_of(results, ablation)
    if not findings.all:
        return []
    metrics = ablation.columns
    primary = _primary(results, metrics)
    grouped = by_verdict(findings.all)
    return [
        *_clear(grouped, metrics, primary),
        *_suggestive(grouped.get("suggestive", []), metrics, primary),
        *_rest(findings, grouped, metrics, primary),
        *_refused(grouped.get("not comparable", [])),
        *_one_seed(findings),
    ]


def headline(results: Results, ablation: AblationResult) -> str:
    """-> the answer in one sentence, for page 1; empty before anything can be compared."""
    return next(iter(answers(results, ablation)), "")


def _primary(results: Results, metrics: Sequence[Metric]) -> Metric:
    """-> the metric that the study names, else the first."""
    named = [metric for metric in metrics if str(metric) == results.study.report.primary]
    return (named or list(metrics))[0]


def _clear(grouped: Grouped, metrics: Sequence[Metric], primary: Metric) -> Iterator[str]:
    for verdict, relation in RELATIONS.items():
        for metric, findings in _by_metric(grouped.get(verdict, []), primary):
            names = listed(_named(finding) for finding in findings)
            yield f"By {metric_name(metric, metrics)}, {names} {_is(findings)} {relation} the control."


def _suggestive(findings: Sequence[Finding], metrics: Sequence[Metric], primary: Metric) -> Iterator[str]:
    for is_ahead, relation in ((True, "ahead of"), (False, "behind")):
        for metric, some in _by_metric([finding for finding in findings if finding.is_ahead is is_ahead], primary):
            names = listed(_named(finding) for finding in some)
            name = metric_name(metric, metrics)
            yield f"By {name}, {names} {_is(some)} {relation} the control; this is suggestive only."


def _rest(findings: Findings, grouped: Grouped, metrics: Sequence[Metric], primary: Metric) -> Iterator[str]:
    rest = [finding for finding in grouped.get("inconclusive", []) if not math.isnan(finding.p_holm)]
    unknown = len(grouped.get("inconclusive", [])) - len(rest)
    if unknown:
        yield f"{plural(unknown, 'comparison')} of one question, or of one cluster of them: no error is known."
    if not rest:
        return
    if len(rest) == findings.size:
        yield f"No row can be told from the control by any metric ({plural(findings.size, 'comparison')})."
    else:
        yield f"The other {plural(len(rest), 'comparison')} of {findings.size} cannot be told from no difference."
    visible = findings.visible.get(primary)
    if visible is not None:
        name, places = metric_name(primary, metrics), decimals([visible / 2.8])
        yield f"By {name}, a difference under about {number(visible, places)} would not have been seen."


def _refused(findings: Sequence[Finding]) -> Iterator[str]:
    if findings:
        reasons = listed(dict.fromkeys(finding.why for finding in findings))
        yield f"{plural(len(findings), 'comparison')} cannot be made: {reasons}."


def _one_seed(findings: Findings) -> Iterator[str]:
    rows = findings.of_questions_only
    if not findings.has_seed_noise:
        yield "One seed: another one could change every one of these numbers by more than the noise told here."
    elif rows:
        names = listed(recipe_label(row.row.label) for row in rows)
        yield f"Of {names} one seed is done: another one could change these numbers by more than the noise told here."


def _by_metric(findings: Sequence[Finding], primary: Metric) -> Iterator[tuple[Metric, list[Finding]]]:
    """The primary metric first, the others as in the table."""
    metrics = sorted(dict.fromkeys(finding.metric for finding in findings), key=lambda metric: metric != primary)
    for metric in metrics:
        yield metric, [finding for finding in findings if finding.metric == metric]


def _named(finding: Finding) -> str:
    """-> `lr=0.001 (+0.012, 95 % +0.003 to +0.021)`: the interval that the verdict is read from."""
    assert finding.contrast
    level, low, high = finding.deciding
    places = decimals([finding.contrast.se])
    value = number(finding.contrast.value, places, is_signed=True)
    return f"{recipe_label(finding.row.row.label)} ({value}, {level} {interval_text(low, high, places)})"


def _is(findings: Sequence[Finding]) -> str:
    return "is" if len(findings) == 1 else "are"
