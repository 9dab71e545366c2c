"""Whether scores rise or fall along an axis that has an order: one contrast a metric, in a sentence and a table."""

from collections.abc import Sequence
from typing import NamedTuple

from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.folded import folded
from ablate.report.exhibits.spreadsheet import to_csv
from ablate.report.exhibits.words import decimals, listed, metric_name, number, p_text, plain
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


@EXHIBITS.register("table-trend", order=60)
def trend(results: Results, ablation: AblationResult) -> Piece | None:
    """-> tables/<ablation>-trend.csv, and the table folded below that of the scores."""
    found = trends_of(results, ablation)
    if not found:
        return None
    return folded(
        title=ablation.title,
        summary=said(found, ablation.columns),
        region="Trend",
        caption="How scores move along the axis.",
        head=HEAD,
        lines=[_line(one, _name(one, found, ablation.columns)) for one in found],
        note=NOTE + ("" if all(one.contrast.has_seed_noise for one in found) else ONE_SEED),
        files={f"tables/{ablation.name}-trend.csv": _csv(found)},
    )


def said(found: Sequence[Trend], columns: Sequence[Metric]) -> str:
    """-> a sentence without its full stop, written from p as corrected: which metrics have a trend."""
    axes = listed(dict.fromkeys(f"{one.axis.name} from {_range(one)}" for one in found))
    clear = [one for one in found if one.direction != "inconclusive"]
    if not clear:
        bent = [_name(one, found, columns) for one in found if one.is_bent]
        warned = f"; the rows follow no line by {listed(bent)}" if bent else ""
        return f"Along {axes}: no metric's trend can be told from none{warned}"
    return f"Along {axes}, by a straight line: {listed(_told(one, _name(one, found, columns)) for one in clear)}"


def _name(one: Trend, found: Sequence[Trend], columns: Sequence[Metric]) -> str:
    """The pair is named where there are several."""
    pair = f" ({one.pair})" if len({other.pair for other in found}) > 1 else ""
    return metric_name(one.metric, columns) + pair


def _told(one: Trend, name: str) -> str:
    """`hellaswag acc rises by 0.021 (95 % +0.011 to +0.031)`."""
    places = decimals([one.contrast.se])
    low, high = (number(end, places, is_signed=True) for end in one.contrast.interval())
    verb = "rises" if one.contrast.value > 0 else "falls"
    only = "; suggestive only" if one.direction == "suggestive" else ""
    change = number(abs(one.contrast.value), places)
    return f"{name} {verb} by {change} (95 % {low} to {high}{only}{'; the rows follow no line' if one.is_bent else ''})"


def _range(one: Trend) -> str:
    return f"{plain(min(one.axis.values))} to {plain(max(one.axis.values))}"


def _line(one: Trend, name: str) -> Line:
    places = decimals([one.contrast.se])
    low, high = (number(end, places, is_signed=True) for end in one.contrast.interval())
    out = f", {len(one.left_out)} left out" if one.left_out else ""
    scale = ", log" if one.axis.is_log else ""
    return Line(
        f"{one.axis.name} {_range(one)}{scale}",
        name,
        f"{len(one.rows)}{out}",
        number(one.contrast.value, places, is_signed=True),
        f"{low} to {high}",
        p_text(one.contrast.p),
        p_text(one.p_holm),
        p_text(one.bend.p),
        f"{one.direction}{', bent' if one.is_bent else ''}",
    )


def _csv(found: Sequence[Trend]) -> str:
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
        for one in found
    ]
    return to_csv([head, *lines])
