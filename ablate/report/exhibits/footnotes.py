"""The small print under a table: what was compared with what, on how many questions, and what ± means."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ablate.report.exhibits.published_table import unlike_texts
from ablate.report.exhibits.table_rows import TableRow
from ablate.report.formatting import decimals, noise, number, plural
from ablate.report.metric_names import metric_name
from ablate.report.recipes import unlabelled_settings
from ablate.report.words import say
from ablate.results.asking_text import SAID, questions_text, ways
from ablate.results.collect import AblationResult, CellResult, Metric, Results
from ablate.results.paired import Contrast
from ablate.results.replication import unlike
from ablate.results.verdicts import Findings, findings_of
from ablate.study.published import Published


def footnotes(
    results: Results, ablation: AblationResult, lines: Sequence[TableRow], published: Published | None
) -> list[str]:
    """-> sentences."""
    return [
        *_rehearsal(results),
        *_errors(ablation),
        *_control(ablation, lines, findings_of(results, ablation)),
        *_equivalence(results, findings_of(results, ablation)),
        *_published(results, lines, published),
        *unlabelled_settings(ablation),
        *_questions(ablation),
    ]


def _rehearsal(results: Results) -> Iterator[str]:
    if results.study.rehearsal:
        yield say("scores.rehearsal")


def _errors(ablation: AblationResult) -> Iterator[str]:
    if not ablation.columns:
        return
    if any(len(row.done) > 1 for row in ablation.rows):
        yield say("scores.means")
        yield say("scores.stderr_of_one")
    else:
        yield say("scores.stderr")


def _control(ablation: AblationResult, lines: Sequence[TableRow], findings: Findings) -> Iterator[str]:
    for control in ablation.controls:
        if not control.done:
            yield say("scores.control_missing", control=control.row.label)
            continue
        exceptions = (row.row.label for row in findings.of_questions_only)
        yield say("scores.control", control=control.row.label, clusters=_clusters(lines))
        yield say("scores.noise", sources=noise(has_seeds=findings.has_seed_noise, exceptions=exceptions))
    if any(row.done for row in ablation.rows):
        yield from _verdicts(findings, ablation.columns)


def _verdicts(findings: Findings, metrics: Sequence[Metric]) -> Iterator[str]:
    if findings.size:
        yield say("scores.verdicts")
    if findings.visible:
        smallest = (
            f"{metric_name(metric, metrics)} {number(d, decimals([d / 2.8]))}" for metric, d in findings.visible.items()
        )
        yield say("scores.visible", smallest=", ".join(smallest))
    yield say("scores.bold" if findings.has_seed_noise else "scores.not_bold")


def _equivalence(results: Results, findings: Findings) -> Iterator[str]:
    if findings.size and findings.has_seed_noise:
        yield say("scores.equivalent", delta=f"{results.study.report.delta:g}")


def _clusters(lines: Sequence[TableRow]) -> str:
    """Which tasks' errors allow for clusters of questions."""
    num_clusters = {
        metric.task: entry.difference.clusters
        for line in lines
        for metric, entry in line.entries.items()
        if isinstance(entry.difference, Contrast) and entry.difference.clusters
    }
    counts = ", ".join(f"{task}: {plural(clusters, 'group')}" for task, clusters in num_clusters.items())
    return say("scores.clusters", counts=counts) if counts else ""


def _published(results: Results, lines: Sequence[TableRow], published: Published | None) -> Iterator[str]:
    beside = [line for line in lines if any(entry.published is not None for entry in line.entries.values())]
    if not (published and beside):
        return
    yield say("scores.published", source=published.source)
    not_alike = unlike_texts(item for line in beside for item in unlike(published, line.result.row, results.study))
    if not_alike:
        yield say("scores.unlike", settings=", ".join(not_alike))


def _questions(ablation: AblationResult) -> Iterator[str]:
    done = [cell for cell in ablation.cells if cell.is_done]
    shown = dict.fromkeys(metric.task for metric in ablation.columns)
    yield from dict.fromkeys(_conditions(cell, shown) for cell in done)


def _task(name: str, result: Mapping[str, Any]) -> str:
    version = result.get("version")  # commonsense_qa declares none
    asked = "".join(f", {way}" for way in ways(result.get("asked", {})))
    return f"{name} n = {result['n']}" + ("" if version is None else f", version {version}") + asked


def _conditions(cell: CellResult, shown: Iterable[str]) -> str:
    evaluation = cell.evaluation
    tasks = (_task(task, result) for task in shown if (result := evaluation["tasks"].get(task)))
    version, dtype, batch_size = (evaluation.get(name) for name in ("lm_eval", "dtype", "batch_size"))
    asked = {name: evaluation[name] for name in SAID if name in evaluation}
    how = ", ".join([questions_text(evaluation.get("limit")), *ways(asked)])
    values = {"tasks": ", ".join(tasks), "version": version, "dtype": dtype, "batch_size": batch_size, "how": how}
    return say("scores.conditions", **values)
