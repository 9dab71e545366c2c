"""A time line of what ran where: a lane for each card or job, several where stages shared it; idle time left out."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ablate.core.text import duration
from ablate.report import plot_style
from ablate.report.exhibits.base import OVERVIEWS, Piece
from ablate.report.exhibits.figure import Panel, figure
from ablate.report.formatting import plural
from ablate.report.labels import shortened
from ablate.report.stage_kinds import COLORS, WORK
from ablate.report.words import say
from ablate.results.collect import Results
from ablate.results.stage_times import ON_A_DEVICE, provenance

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
    spot: str = ""
    """Which card or core of the host, or which job of a cluster: gpu 0, a100 job 1234_7; empty where not recorded."""

    @property
    def place(self) -> tuple[str, str, str]:
        return self.host, self.spot, self.device


@OVERVIEWS.register("timeline", order=30)
def timeline(results: Results) -> Piece | None:
    """-> figures/timeline.png and .svg, and the drawing of the page."""
    bars = bars_of(results)
    lanes = drawn_lanes(bars)
    if not 0 < len(lanes) <= MOST_LANES:
        return None
    name, picture = f"{results.prefix}timeline", partial(_figure, bars, lanes)
    return figure(
        name,
        picture,
        [Panel(name, picture, _alt(bars))],
        title=say("timeline.title"),
        caption=say("timeline.caption"),
        fold="What ran when",
    )


def bars_of(results: Results) -> list[Bar]:
    """-> the finished trainings and evaluations, in the order in which they began; one for each of their cards."""
    bars = []
    for stage in results.plan.all_stages:
        record = provenance(results.plan, stage)
        if stage.kind in KINDS and record.get("started") and record.get("seconds") is not None:
            begin = datetime.fromisoformat(record["started"]).timestamp()
            place = (str(record.get("host", "")), str(record.get("device", "")))
            end = begin + max(float(record["seconds"]), 0.0)
            bar = Bar(results.plan.label(stage), stage.kind, *place, begin, end)
            bars += [replace(bar, spot=spot) for spot in _spots(record)]
    return sorted(bars, key=lambda bar: (bar.begin, bar.label))


def _spots(record: Mapping[str, Any]) -> list[str]:
    """-> several of a stage that had several cards."""
    if record.get("job"):
        return [f"{record.get('profile', 'job')} {record['job']}"]
    return record.get("cards") or [str(record.get("slot", ""))]


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
    return sorted(lanes, key=lambda lane: [_as_counted(part) for part in lane[0].place])


def drawn_lanes(bars: Sequence[Bar]) -> list[list[Bar]]:
    """-> the lanes of each card and job; of hundreds of short jobs, those of each sort of device on each host."""
    lanes = lanes_of(bars)
    return lanes if len(lanes) <= MOST_LANES else lanes_of([replace(bar, spot="") for bar in bars])


def _as_counted(text: str) -> list[tuple[int, str]]:
    """-> an order in which gpu 10 comes after gpu 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


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
    pauses, until = [], bars[0].end
    for bar in bars:
        if bar.begin > until:
            pauses.append(Pause(until, bar.begin))
        until = max(until, bar.end)
    working = until - bars[0].begin - sum(pause.seconds for pause in pauses)
    return [pause for pause in pauses if pause.seconds > IDLE_SHARE * working]


@dataclass(frozen=True)
class WorkTime:
    """The time line's scale: time since the first bar began, without the pauses."""

    begin: float
    pauses: tuple[Pause, ...]
    unit: str
    seconds_per_unit: float

    def at(self, time: float) -> float:
        """-> where a time, in seconds since the epoch, lies; in units."""
        cut = sum(min(max(time - pause.begin, 0), pause.seconds) for pause in self.pauses)
        return (time - self.begin - cut) / self.seconds_per_unit


def scale_of(bars: Sequence[Bar]) -> WorkTime:
    """-> in seconds, minutes or hours, as the work took long."""
    pauses = pauses_of(bars)
    seconds = max(bar.end for bar in bars) - bars[0].begin - sum(pause.seconds for pause in pauses)
    return WorkTime(bars[0].begin, tuple(pauses), *_unit(seconds))


def _figure(bars: Sequence[Bar], lanes: Sequence[Sequence[Bar]]) -> Any:
    figure, axes = plot_style.panels(1, 8.6, 0.95 + 0.34 * len(lanes))
    ax, scale = axes[0], scale_of(bars)
    for y, lane in enumerate(lanes):
        for bar in lane:
            _draw_bar(ax, bar, y, scale)
    for pause in scale.pauses:
        _draw_pause(ax, pause, scale.at(pause.begin))
    ax.set_ylim(len(lanes) - 0.5, -0.9)
    ax.set_yticks(range(len(lanes)), shortened(list(_names(lanes)), _room(bars)))
    ax.set_xlabel(f"{scale.unit} of work")
    ax.grid(visible=False, axis="y")
    _legend(ax, bars)
    return figure


def _room(bars: Sequence[Bar]) -> int:
    """-> letters for the name of a lane: a host's stands before those of its cards and jobs."""
    return 44 if len({bar.host for bar in bars}) > 1 else 34


def _draw_bar(ax: "Axes", bar: Bar, y: int, scale: WorkTime) -> None:
    left, width = scale.at(bar.begin), scale.at(bar.end) - scale.at(bar.begin)
    (patch,) = ax.barh(y, width, left=left, height=0.62, color=COLORS[bar.kind], edgecolor=plot_style.PAPER)
    patch.set_label(f"{bar.label}, {duration(bar.end - bar.begin)}")


def _draw_pause(ax: "Axes", pause: Pause, x: float) -> None:
    ax.axvline(x, color=plot_style.MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
    ax.text(x, -0.55, f"pause {duration(pause.seconds)}", fontsize=7, color=plot_style.MUTED, ha="center", va="bottom")


def _names(lanes: Sequence[Sequence[Bar]]) -> Iterator[str]:
    """-> where a lane is, once for the lanes that share it: the host and the device where there are several."""
    places = [lane[0].place for lane in lanes]
    hosts, spots, devices = (set(parts) for parts in zip(*places, strict=True))
    host_names = _unless_alike(hosts, lambda host: host.partition(".")[0])
    device_names = _unless_alike(devices, lambda device: device.removeprefix("NVIDIA "))
    before = None
    for place in places:
        host, spot, device = place
        is_device_shown = len(spots) == 1 or len(devices) > 1 or not spot
        parts = (spot if len(spots) > 1 else "", device_names[device] if is_device_shown else "")
        words = ", ".join(filter(None, parts))
        yield "" if place == before else f"{host_names[host]}: {words}" if len(hosts) > 1 else words
        before = place


def _unless_alike(names: Collection[str], short: Callable[[str], str]) -> dict[str, str]:
    """-> each name, cut short where that leaves them different: a host without its domain, a card without its maker."""
    cut = {name: short(name) for name in names}
    return cut if len(set(cut.values())) == len(cut) else {name: name for name in names}


def _legend(ax: "Axes", bars: Sequence[Bar]) -> None:
    from matplotlib.patches import Patch

    shown = [kind for kind in KINDS if any(bar.kind == kind for bar in bars)]
    handles = [Patch(color=COLORS[kind], label=kind.replace("_", " ")) for kind in shown]
    assert ax.figure
    ax.figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), labelcolor=plot_style.INK)


def _unit(seconds: float) -> tuple[str, float]:
    return ("hours", 3600.0) if seconds > 7200 else ("minutes", 60.0) if seconds > 180 else ("seconds", 1.0)


def _alt(bars: Sequence[Bar]) -> str:
    longest = max(bars, key=lambda bar: bar.end - bar.begin)
    return say(
        "timeline.alt",
        stages=plural(len({bar.label for bar in bars}), "stage"),
        work=duration(sum(bar.end - bar.begin for bar in bars)),
        devices=", ".join(dict.fromkeys(bar.device for bar in bars)),
        longest=longest.label,
        time=duration(longest.end - longest.begin),
    )
