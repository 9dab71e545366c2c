"""The table of trends: whether scores rise or fall along an axis that has an order, one contrast a metric."""

from collections.abc import Sequence
from typing import NamedTuple

from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.folded_table import folded_table
from ablate.report.formatting import decimals, interval_text, listed, metric_name, number, p_text, pair_suffix, plain
from ablate.report.spreadsheet import to_csv
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.trends import Trend, trends_of

HEAD = ("Axis", "Metric", "Rows", "Change over the axis", "95 % interval", "p", "p (Holm)", "p of a bend", "Trend")
NOTE = (
    "Change over the axis: of the straight line through the rows' scores, from the lowest value to the highest"
    " (learning rates by their logarithm), question by question. A rise and a fall cancel in it: it asks for a trend,"
    " not for a best value. Bent: the rows do not follow a line (quadratic contrast, p < 0.05, uncorrected), so that"
    " the trend tells little. p (Holm): corrected for the metrics of this table; these trends are not among the"
    " comparisons with the control, and change no verdict."
)
ONE_SEED = " Question noise only: with one seed a trend is suggestive at most."


class Line(NamedTuple):
    """One metric, as shown."""

    axis: str
    metric: str
    rows: str
    change: str
    interval: str
    p: str
    p_holm: str
    p_bend: str
    trend: str


@EXHIBITS.register("1-table-trend")
def trend_table(results: Results, ablation: AblationResult) -> Piece | None:
    """-> tables/<ablation>-trend.csv, and the table folded below that of the scores."""
    trends = trends_of(results, ablation)
    if not trends:
        return None
    return folded_table(
        title=ablation.title,
        summary=summary_text(trends, ablation.columns),
        region="Trend",
        caption="How scores move along the axis.",
        head=HEAD,
        lines=[_line(one, _name(one, trends, ablation.columns)) for one in trends],
        note=NOTE + ("" if all(one.contrast.has_seed_noise for one in trends) else ONE_SEED),
        files={f"tables/{ablation.name}-trend.csv": _csv(trends)},
    )


def summary_text(trends: Sequence[Trend], columns: Sequence[Metric]) -> str:
    """-> a sentence without its full stop, written from p as corrected: which metrics have a trend."""
    axes = listed(dict.fromkeys(f"{one.axis.name} from {_range(one)}" for one in trends))
    clear = [one for one in trends if one.direction != "inconclusive"]
    if not clear:
        bent = [_name(one, trends, columns) for one in trends if one.is_bent]
        warned = f"; the rows follow no line by {listed(bent)}" if bent else ""
        return f"Along {axes}: no metric's trend can be told from none{warned}"
    return f"Along {axes}, by a straight line: {listed(_trend_text(one, _name(one, trends, columns)) for one in clear)}"


def _name(one: Trend, trends: Sequence[Trend], columns: Sequence[Metric]) -> str:
    return metric_name(one.metric, columns) + pair_suffix(one.pair, [other.pair for other in trends])


def _trend_text(one: Trend, name: str) -> str:
    """`hellaswag acc rises by 0.021 (95 % +0.011 to +0.031)`."""
    places = decimals([one.contrast.se])
    interval = interval_text(*one.contrast.interval(), places)
    verb = "rises" if one.contrast.value > 0 else "falls"
    only = "; suggestive only" if one.direction == "suggestive" else ""
    change = number(abs(one.contrast.value), places)
    return f"{name} {verb} by {change} (95 % {interval}{only}{'; the rows follow no line' if one.is_bent else ''})"


def _range(one: Trend) -> str:
    return f"{plain(min(one.axis.values))} to {plain(max(one.axis.values))}"


def _line(one: Trend, name: str) -> Line:
    places = decimals([one.contrast.se])
    out = f", {len(one.left_out)} left out" if one.left_out else ""
    scale = ", log" if one.axis.is_log else ""
    return Line(
        f"{one.axis.name} {_range(one)}{scale}",
        name,
        f"{len(one.rows)}{out}",
        number(one.contrast.value, places, is_signed=True),
        interval_text(*one.contrast.interval(), places),
        p_text(one.contrast.p),
        p_text(one.p_holm),
        p_text(one.bend.p),
        f"{one.direction}{', bent' if one.is_bent else ''}",
    )


def _csv(trends: Sequence[Trend]) -> str:
    head = (
        "pair",
        "metric",
        "axis",
        "scale",
        "rows",
        "change",
        "se",
        "df",
        "low",
        "high",
        "p",
        "p_holm",
        "p_bend",
        "trend",
    )
    lines = [
        (
            *(one.pair, str(one.metric), one.axis.path, "log" if one.axis.is_log else "linear", len(one.rows)),
            *(one.contrast.value, one.contrast.se, float(one.contrast.df), *one.contrast.interval()),
            *(one.contrast.p, one.p_holm, one.bend.p, one.direction),
        )
        for one in trends
    ]
    return to_csv([head, *lines])
