"""The table of our scores beside published ones: their difference, and in what the two were not made alike."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.folded_table import folded_table
from ablate.report.formatting import decimals, plain, plural, with_error
from ablate.report.metric_names import metric_name
from ablate.report.spreadsheet import to_csv
from ablate.report.words import say
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.replication import OF_A_METRIC, Replication, Unlike, replications_of
from ablate.study.published import Published, read_published

HEAD = ("Metric", "Model", "Seeds", "Ours", "Published", "Difference", "Not alike")


class Line(NamedTuple):
    """One row by one metric, as shown."""

    metric: str
    model: str
    seeds: str
    ours: str
    published: str
    difference: str
    unlike: str


@EXHIBITS.register("table-published", order=50)
def published_table(results: Results, ablation: AblationResult) -> Piece | None:
    """-> tables/<ablation>-published.csv, and the table folded below that of the scores."""
    compared = replications_of(results, ablation)
    published = read_published(results.study.published)
    if not (compared and published):
        return None
    compared = tuple(sorted(compared, key=lambda one: ablation.columns.index(one.metric)))
    return folded_table(
        title=ablation.title,
        summary=say("published.summary", counts=_counted(compared)),
        region="Published scores",
        caption=say("published.caption", source=published.source),
        head=HEAD,
        lines=[_line(one, ablation.columns, compared) for one in compared],
        note=" ".join([say("published.note"), *_notes(compared, published)]),
        files={f"tables/{ablation.name}-published.csv": _csv(compared)},
    )


def unlike_texts(unlike: Iterable[Unlike]) -> list[str]:
    """-> `distill.batch_size = 16 (published: 128)`; without theirs where it is not told."""
    return list(dict.fromkeys(_unlike_text(one) for one in unlike))


def _unlike_text(one: Unlike) -> str:
    if one.what == "rehearsal":
        return plain(one.ours)
    values = {"setting": one.what, "ours": plain(one.ours), "theirs": plain(one.theirs)}
    return say("published.theirs" if one.is_told else "published.ours", **values)


def _counted(compared: Sequence[Replication]) -> str:
    """`3 of 32 differ by more than two standard errors`, of those whose error is known."""
    known = [one for one in compared if one.se is not None]
    far = [one for one in known if abs(one.difference) > 2 * (one.se or 0.0)]
    if not known:
        return say("published.unknown", scores=plural(len(compared), "score"))
    return say("published.far", num=len(far), scores=plural(len(known), "score"))


def _notes(compared: Sequence[Replication], published: Published) -> Iterator[str]:
    if any(_settings(one) for one in compared):
        yield say("published.recipes")
    untold = [
        task for task in dict.fromkeys(one.metric.task for one in compared) if task not in published.about.versions
    ]
    if untold:
        yield say("published.versions", tasks=", ".join(untold))


def _settings(one: Replication) -> list[Unlike]:
    """-> what does not depend on the metric."""
    return [item for item in one.unlike if item.what not in OF_A_METRIC]


def _line(one: Replication, columns: Sequence[Metric], compared: Sequence[Replication]) -> Line:
    same = [other for other in compared if other.metric == one.metric]
    own = [item for item in one.unlike if item.what in OF_A_METRIC]
    return Line(
        metric_name(one.metric, columns),
        one.row.row.label,
        str(len(one.row.done)),
        _whole(with_error(one.value, one.stderr, decimals([other.stderr for other in same]))),
        _whole(with_error(one.theirs.value, one.theirs.stderr, 4)),
        _whole(with_error(one.difference, one.se, decimals([other.se for other in same]), is_signed=True)),
        "; ".join([*unlike_texts(own), *(["recipe"] if _settings(one) else [])]),
    )


def _whole(text: str) -> str:
    """-> the same on one line."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _csv(compared: Sequence[Replication]) -> str:
    head = ("pair", "metric", "row", "label", "seeds", "ours", "ours stderr", "published", "published stderr")
    lines = [
        (
            *(one.row.row.setting.pair, str(one.metric), one.row.row.name, one.row.row.label, len(one.row.done)),
            *(one.value, one.stderr, one.theirs.value, one.theirs.stderr, one.difference, one.se),
            "; ".join(unlike_texts(one.unlike)),
        )
        for one in compared
    ]
    return to_csv([(*head, "difference", "difference se", "not alike"), *lines])
