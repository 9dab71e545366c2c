"""The table of trends: whether scores rise or fall along an axis that has an order, one contrast a metric."""

from collections.abc import Sequence
from typing import NamedTuple

from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.folded_table import folded_table
from ablate.report.formatting import decimals, interval_text, listed, number, p_text, pair_suffix, plain
from ablate.report.metric_names import metric_name
from ablate.report.spreadsheet import to_csv
from ablate.report.words import say
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.paired import Contrast
from ablate.results.trends import Trend, trends_of

HEAD = ("Axis", "Metric", "Rows", "Change over the axis", "95 % interval", "p", "p (Holm)", "p of a bend", "Trend")
CSV_HEAD = (
    *("pair", "metric", "axis", "scale", "rows"),
    *("change", "se", "df", "low", "high", "p", "p_holm", "p_bend", "trend"),
)


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


@EXHIBITS.register("table-trend", order=60)
def trend_table(results: Results, ablation: AblationResult) -> Piece | None:
    """-> tables/<ablation>-trend.csv, and the table folded below that of the scores."""
    trends = trends_of(results, ablation)
    if not trends:
        return None
    return folded_table(
        title=ablation.title,
        summary=summary_text(trends, ablation.columns),
        region="Trend",
        caption=say("trend.caption"),
        head=HEAD,
        lines=[_line(trend, _name(trend, trends, ablation.columns)) for trend in trends],
        note=_note(trends),
        files={f"tables/{ablation.name}-trend.csv": _csv(trends)},
    )


def _note(trends: Sequence[Trend]) -> str:
    has_seeds = all(trend.contrast.has_seed_noise for trend in trends)
    return say("trend.note") if has_seeds else f"{say('trend.note')} {say('trend.one_seed')}"


def summary_text(trends: Sequence[Trend], columns: Sequence[Metric]) -> str:
    """-> a sentence without its full stop, written from the verdicts: which metrics have a trend."""
    axes = listed(dict.fromkeys(_axis_text(trend) for trend in trends))
    clear = [trend for trend in trends if trend.direction not in ("inconclusive", "flat")]
    if clear:
        return say(
            "trend.clear", axes=axes, trends=listed(_trend_text(one, _name(one, trends, columns)) for one in clear)
        )
    bent = [_name(trend, trends, columns) for trend in trends if trend.is_bent]
    return say("trend.none_bent", axes=axes, metrics=listed(bent)) if bent else say("trend.none", axes=axes)


def _axis_text(trend: Trend) -> str:
    low, high = plain(min(trend.axis.values)), plain(max(trend.axis.values))
    return say("trend.axis", axis=trend.axis.name, low=low, high=high)


def _name(trend: Trend, trends: Sequence[Trend], columns: Sequence[Metric]) -> str:
    return metric_name(trend.metric, columns) + pair_suffix(trend.pair, [other.pair for other in trends])


def _trend_text(trend: Trend, name: str) -> str:
    """`HellaSwag acc rises`; the numbers are in the table."""
    text = say("trend.rises" if trend.contrast.value > 0 else "trend.falls", metric=name)
    return say("trend.bent", trend=text) if trend.is_bent else text


def _line(trend: Trend, name: str) -> Line:
    places = decimals([trend.contrast.se])
    scale = ", log" if trend.axis.is_log else ""
    rows, left_out = f"{len(trend.rows)}", trend.effect.left_out
    return Line(
        _axis_text(trend) + scale,
        name,
        say("trend.left_out", rows=rows, num=len(left_out)) if left_out else rows,
        number(trend.contrast.value, places, is_signed=True),
        interval_text(trend.effect.low, trend.effect.high, places),
        p_text(trend.contrast.p),
        p_text(trend.effect.p_holm),
        p_text(trend.bend.p),
        say("trend.bent_word", trend=trend.direction) if trend.is_bent else trend.direction,
    )


def _csv(trends: Sequence[Trend]) -> str:
    return to_csv([CSV_HEAD, *(_csv_line(trend, trend.contrast) for trend in trends)])


def _csv_line(trend: Trend, change: Contrast) -> tuple[object, ...]:
    scale = "log" if trend.axis.is_log else "linear"
    about = (trend.pair, str(trend.metric), trend.axis.path, scale, len(trend.rows))
    numbers = (
        change.value,
        change.se,
        float(change.df),
        trend.effect.low,
        trend.effect.high,
        change.p,
        trend.effect.p_holm,
        trend.bend.p,
    )
    return *about, *numbers, trend.direction
