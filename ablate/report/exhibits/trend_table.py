"""The table of trends: whether scores rise or fall along an axis that has an order, one contrast a metric."""

from collections.abc import Sequence
from typing import NamedTuple

from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.folded_table import folded_table
from ablate.report.formatting import decimals, interval_text, listed, number, p_text, pair_suffix, plain
from ablate.report.metric_names import metric_name
from ablate.report.spreadsheet import to_csv
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.paired import Contrast
from ablate.results.trends import Trend, trends_of

HEAD = ("Axis", "Metric", "Rows", "Change over the axis", "95 % interval", "p", "p (Holm)", "p of a bend", "Trend")
NOTE = (
    "Change over the axis: of the straight line through the rows' scores, from the lowest value to the highest"
    " (learning rates by their logarithm), question by question. A rise and a fall cancel in it: it asks for a trend,"
    " not for a best value. Bent: the rows do not follow a line (quadratic contrast, p < 0.05, uncorrected), so that"
    " the trend tells little. p (Holm) and interval: corrected for all comparisons of this page, of which these trends"
    " are a part. Flat: the 90 % interval of the change alone lies within the bounds of equivalence."
)
ONE_SEED = " Question noise only: with one seed a trend is suggestive at most."


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
        caption="How scores move along the axis.",
        head=HEAD,
        lines=[_line(trend, _name(trend, trends, ablation.columns)) for trend in trends],
        note=NOTE + ("" if all(trend.contrast.has_seed_noise for trend in trends) else ONE_SEED),
        files={f"tables/{ablation.name}-trend.csv": _csv(trends)},
    )


def summary_text(trends: Sequence[Trend], columns: Sequence[Metric]) -> str:
    """-> a sentence without its full stop, written from p as corrected: which metrics have a trend."""
    axes = listed(dict.fromkeys(f"{trend.axis.name} from {_range(trend)}" for trend in trends))
    clear = [trend for trend in trends if trend.direction not in ("inconclusive", "flat")]
    if not clear:
        bent = [_name(trend, trends, columns) for trend in trends if trend.is_bent]
        warned = f"; the rows follow no line by {listed(bent)}" if bent else ""
        return f"Along {axes}: no metric's trend can be told from none{warned}"
    texts = listed(_trend_text(trend, _name(trend, trends, columns)) for trend in clear)
    return f"Along {axes}, by a straight line: {texts}"


def _name(trend: Trend, trends: Sequence[Trend], columns: Sequence[Metric]) -> str:
    return metric_name(trend.metric, columns) + pair_suffix(trend.pair, [other.pair for other in trends])


def _trend_text(trend: Trend, name: str) -> str:
    """`hellaswag acc rises by 0.021 (95 % +0.011 to +0.031)`."""
    places = decimals([trend.contrast.se])
    interval = interval_text(trend.effect.low, trend.effect.high, places)
    verb = "rises" if trend.contrast.value > 0 else "falls"
    only = "; suggestive only" if trend.direction == "suggestive" else ""
    change = number(abs(trend.contrast.value), places)
    return f"{name} {verb} by {change} (95 % {interval}{only}{'; the rows follow no line' if trend.is_bent else ''})"


def _range(trend: Trend) -> str:
    return f"{plain(min(trend.axis.values))} to {plain(max(trend.axis.values))}"


def _line(trend: Trend, name: str) -> Line:
    places = decimals([trend.contrast.se])
    out = f", {len(trend.effect.left_out)} left out" if trend.effect.left_out else ""
    scale = ", log" if trend.axis.is_log else ""
    return Line(
        f"{trend.axis.name} {_range(trend)}{scale}",
        name,
        f"{len(trend.rows)}{out}",
        number(trend.contrast.value, places, is_signed=True),
        interval_text(trend.effect.low, trend.effect.high, places),
        p_text(trend.contrast.p),
        p_text(trend.effect.p_holm),
        p_text(trend.bend.p),
        f"{trend.direction}{', bent' if trend.is_bent else ''}",
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
