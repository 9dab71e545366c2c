"""A time line of what ran where: a lane for each stage that a device worked on at once, idle time left out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ablate.core import disk
from ablate.core.text import duration
from ablate.report.exhibits import drawing
from ablate.report.exhibits.base import OVERVIEWS, Piece
from ablate.report.exhibits.figure import Panel, figure
from ablate.report.exhibits.stage_kinds import COLORS, ON_A_DEVICE, WORK
from ablate.report.exhibits.words import plural, short
from ablate.results.collect import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = (*WORK, *(kind for kind in ON_A_DEVICE if kind not in WORK))
"""In the order of the legend."""
IDLE_SHARE = 0.05
"""A pause longer than this share of the working time is cut out, and its length written there."""
MOST_LANES = 64


@dataclass(frozen=True)
class Bar:
    """One stage's work, in seconds since the epoch."""

    label: str
    kind: str
    host: str
    device: str
    begin: float
    end: float

    @property
    def place(self) -> tuple[str, str]:
        return self.host, self.device


@OVERVIEWS.register("2-timeline")
def timeline(results: Results) -> Piece | None:
    """-> figures/timeline.png and .svg, and the drawing of the page."""
    bars = bars_of(results)
    lanes = lanes_of(bars)
    if not 0 < len(lanes) <= MOST_LANES:
        return None
    name, picture = f"{results.prefix}timeline", partial(_figure, bars, lanes)
    return figure(
        name,
        picture,
        [Panel(name, picture, _alt(bars))],
        title="Time line",
        caption="When each stage was worked on; a lane holds one at a time. Pauses are cut out where so marked.",
    )


def bars_of(results: Results) -> list[Bar]:
    """-> the finished trainings and evaluations, in the order in which they began."""
    found = []
    for stage in results.plan.all_stages:
        told = (disk.read_json(results.plan.store.folder(stage) / "stage.json") or {}).get("provenance") or {}
        if stage.kind in KINDS and told.get("started") and told.get("seconds") is not None:
            begin = datetime.fromisoformat(told["started"]).timestamp()
            place = (str(told.get("host", "")), str(told.get("device", "")))
            end = begin + max(float(told["seconds"]), 0.0)
            found.append(Bar(results.plan.label(stage), stage.kind, *place, begin, end))
    return sorted(found, key=lambda bar: (bar.begin, bar.label))


def lanes_of(bars: Sequence[Bar]) -> list[list[Bar]]:
    """-> each place's lanes, no two bars of a lane at once (begin times are told in whole seconds)."""
    lanes: list[list[Bar]] = []
    for bar in bars:
        fits = (lane for lane in lanes if lane[0].place == bar.place and lane[-1].end <= bar.begin + 1)
        lane = next(fits, None)
        if lane is None:
            lanes.append([bar])
        else:
            lane.append(bar)
    return sorted(lanes, key=lambda lane: lane[0].place)


@dataclass(frozen=True)
class Pause:
    """Nothing ran from `begin` to `end`."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin


def pauses_of(bars: Sequence[Bar]) -> list[Pause]:
    """-> those long enough to be cut out."""
    found, until = [], bars[0].end
    for bar in bars:
        if bar.begin > until:
            found.append(Pause(until, bar.begin))
        until = max(until, bar.end)
    working = until - bars[0].begin - sum(pause.seconds for pause in found)
    return [pause for pause in found if pause.seconds > IDLE_SHARE * working]


def _figure(bars: Sequence[Bar], lanes: Sequence[Sequence[Bar]]) -> Any:
    figure, axes = drawing.panels(1, 8.6, 0.95 + 0.34 * len(lanes))
    ax, pauses = axes[0], pauses_of(bars)
    unit, factor = _unit(max(bar.end for bar in bars) - bars[0].begin - sum(pause.seconds for pause in pauses))

    def at(time: float) -> float:
        return (time - bars[0].begin - sum(min(max(time - of.begin, 0), of.seconds) for of in pauses)) / factor

    for y, lane in enumerate(lanes):
        for bar in lane:
            (patch,) = ax.barh(
                y,
                at(bar.end) - at(bar.begin),
                left=at(bar.begin),
                height=0.62,
                color=COLORS[bar.kind],
                edgecolor=drawing.PAPER,
            )
            patch.set_label(f"{bar.label}, {duration(bar.end - bar.begin)}")
    for pause in pauses:
        x = at(pause.begin)
        ax.axvline(x, color=drawing.MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
        ax.text(x, -0.55, f"pause {duration(pause.seconds)}", fontsize=7, color=drawing.MUTED, ha="center", va="bottom")
    ax.set_ylim(len(lanes) - 0.5, -0.9)
    ax.set_yticks(range(len(lanes)), [short(text, 34) for text in _names(lanes)])
    ax.set_xlabel(f"{unit} of work")
    ax.grid(visible=False, axis="y")
    _legend(ax, bars)
    return figure


def _names(lanes: Sequence[Sequence[Bar]]) -> Iterator[str]:
    """-> a lane's device, once for the lanes that share it; its host too where there are several."""
    is_told = len({lane[0].host for lane in lanes}) > 1
    before = None
    for lane in lanes:
        host, device = place = lane[0].place
        yield "" if place == before else f"{host}: {device}" if is_told else device
        before = place


def _legend(ax: "Axes", bars: Sequence[Bar]) -> None:
    from matplotlib.patches import Patch

    shown = [kind for kind in KINDS if any(bar.kind == kind for bar in bars)]
    handles = [Patch(color=COLORS[kind], label=kind.replace("_", " ")) for kind in shown]
    assert ax.figure
    ax.figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), labelcolor=drawing.INK)


def _unit(seconds: float) -> tuple[str, float]:
    return ("hours", 3600.0) if seconds > 7200 else ("minutes", 60.0) if seconds > 180 else ("seconds", 1.0)


def _alt(bars: Sequence[Bar]) -> str:
    devices = dict.fromkeys(bar.device for bar in bars)
    longest = max(bars, key=lambda bar: bar.end - bar.begin)
    work = duration(sum(bar.end - bar.begin for bar in bars))
    return (
        f"{plural(len(bars), 'stage')} took {work} of work on {', '.join(devices)}; the longest was"
        f" {longest.label}, {duration(longest.end - longest.begin)}."
    )
