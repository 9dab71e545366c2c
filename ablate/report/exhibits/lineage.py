"""A picture of the study's stages: one line a model that is asked, from the model it was to its evaluation."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ablate.report import plot_style
from ablate.report.exhibits.base import OVERVIEWS, Piece
from ablate.report.exhibits.figure import Panel, figure
from ablate.report.formatting import plural, short
from ablate.report.stage_kinds import COLORS, WORDS, is_evaluation, is_fetched
from ablate.report.words import say
from ablate.results.collect import Results
from ablate.store.stage import Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROLES = ("model", "teacher", "student")
MOST_LINES = 80
"""A taller picture is no picture."""
TIMES = "\N{MULTIPLICATION SIGN}"


@OVERVIEWS.register("lineage", order=20)
def lineage(results: Results) -> Piece | None:
    """-> figures/stages.png and .svg, and the drawing of the page."""
    tree = Lineage(results)
    if not 0 < len(tree.evaluations) <= MOST_LINES:
        return None
    name = f"{results.prefix}stages"
    return figure(
        name,
        tree.figure,
        [Panel(name, tree.figure, tree.alt())],
        title=say("lineage.title"),
        caption=tree.caption(),
        fold=say("fold.lineage"),
    )


@dataclass(frozen=True)
class Lineage:
    """Where each stage of a study stands in its picture."""

    results: Results

    @cached_property
    def evaluations(self) -> tuple[Stage, ...]:
        return tuple(stage for stage in self._stages if is_evaluation(stage))

    @cached_property
    def columns(self) -> Mapping[str, int]:
        return columns({stage.kind for stage in self.results.plan.all_stages})

    @cached_property
    def _stages(self) -> tuple[Stage, ...]:
        """What makes a model: data and rows are common to all."""
        stages = [stage for stage in self.results.plan.all_stages if stage.kind in self.columns and not _is_data(stage)]
        return tuple(sorted(stages, key=lambda stage: self.columns[stage.kind]))

    @cached_property
    def _users(self) -> Mapping[str, tuple[Stage, ...]]:
        users: dict[str, list[Stage]] = {stage.key: [] for stage in self._stages}
        for stage in self._stages:
            for parent in self._parents(stage):
                users.setdefault(parent.key, []).append(stage)
        return {key: tuple(stages) for key, stages in users.items()}

    def _parents(self, stage: Stage) -> list[Stage]:
        """-> the stages whose models it starts from, nearest first: not what is behind those."""
        if is_evaluation(stage):
            return [_made_by(stage)]
        inputs = stage.inputs
        roles = [name for name in inputs if name in ROLES or re.fullmatch(r"teacher_\d+", name)]
        by_role = {role: inputs.get(f"{role}_adapter") or inputs[role] for role in roles}
        for aid, cache in self.results.plan.aids(stage).items():
            if cache in self._stages:
                by_role[aid.removesuffix("_cache")] = cache
        if inputs.get("rows") in self._stages:
            by_role["rows"] = inputs["rows"]
        return list(by_role.values())

    @cached_property
    def _asked(self) -> Mapping[str, Stage]:
        """Key of the model's last stage -> its evaluation."""
        return {_made_by(stage).key: stage for stage in self.evaluations}

    @cached_property
    def lines(self) -> Mapping[str, float]:
        """Key of a stage -> its line, from the top: that of its evaluation, else amid those that use it."""
        heights = {stage.key: float(line) for line, stage in enumerate(self.evaluations)}
        for stage in reversed(self._stages):
            if stage.key in heights:
                continue
            own = self._asked.get(stage.key)
            lines = [heights[user.key] for user in self._users[stage.key] if user.key in heights]
            heights[stage.key] = heights[own.key] if own else sum(lines) / max(1, len(lines))
        return heights

    def figure(self) -> Any:
        figure, axes = plot_style.panels(1, 8.6, 0.9 + 0.25 * len(self.evaluations))
        ax = axes[0]
        ax.set_xlim(-1.15, len(self.columns) + 1.3)
        ax.set_ylim(len(self.evaluations) - 0.3, -1.4)
        ax.axis("off")
        for kind, column in self.columns.items():
            ax.text(column, -1.0, WORDS[kind].heading, ha="center", color=plot_style.MUTED, fontsize=8.5)
        for stage in self._stages:
            self._draw(ax, stage)
        return figure

    def _draw(self, ax: "Axes", stage: Stage) -> None:
        x, y = self.columns[stage.kind], self.lines[stage.key]
        for user in self._users[stage.key]:
            self._join(ax, (x, y), (self.columns[user.kind], self.lines[user.key]), stage.kind)
        state = self.results.word_of(stage)
        color, is_done = COLORS[stage.kind], state == "done"
        marker = "X" if state in ("failed", "diverged") else "o"
        face = color if is_done or marker == "X" else plot_style.PAPER
        label = f"{self.results.plan.label(stage)}: {state}"
        ax.plot(x, y, marker=marker, markersize=6.5, color=color, markerfacecolor=face, zorder=3, label=label)
        if is_fetched(stage):
            name = self.results.plan.label(stage).removeprefix("fetch ").partition(",")[0].rpartition("/")[2]
            ax.text(x - 0.12, y, short(name, 24), ha="right", va="center", fontsize=7.5)
        if is_evaluation(stage):
            ax.text(x + 0.12, y, self._evaluation_text(stage), ha="left", va="center", fontsize=7.5)

    @staticmethod
    def _join(ax: "Axes", begin: tuple[float, float], end: tuple[float, float], kind: str) -> None:
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        middle = (begin[0] + end[0]) / 2
        curve = Path(
            [begin, (middle, begin[1]), (middle, end[1]), end], [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
        )
        ax.add_patch(PathPatch(curve, facecolor="none", edgecolor=COLORS[kind], linewidth=0.9, alpha=0.55, zorder=1))

    def _evaluation_text(self, stage: Stage) -> str:
        num = len(self._cells(stage))
        times = f"  {TIMES}{num}" if num > 1 else ""
        return short(self.results.plan.label(stage).removeprefix("evaluate "), 46) + times

    def _cells(self, stage: Stage) -> list[str]:
        return [cell.cell.name for cell in self.results.cells if cell.cell.evaluate.key == stage.key]

    def caption(self) -> str:
        return say("lineage.caption", times=TIMES)

    def alt(self) -> str:
        counts = {kind: sum(stage.kind == kind for stage in self._stages) for kind in self.columns}
        texts = [plural(count, WORDS[kind].noun) for kind, count in counts.items() if count]
        shared = [stage for stage in self.evaluations if len(self._cells(stage)) > 1]
        return say("lineage.alt", counts=", ".join(texts), shared=plural(len(shared), "evaluation"))


def columns(here: Collection[str]) -> dict[str, int]:
    """Kind -> its column; `here`: the kinds of a study's stages."""
    kinds = [kind for kind, words in WORDS.items() if kind in here or not words.is_rare]
    return {kind: number for number, kind in enumerate(kinds)}


def _is_data(stage: Stage) -> bool:
    return is_fetched(stage) and getattr(stage.settings, "repo_type", "model") != "model"


def _made_by(evaluation: Stage) -> Stage:
    """-> the last training of the model that is asked, or the model as it was fetched."""
    inputs = evaluation.inputs
    adapters = [stage for name, stage in inputs.items() if name.startswith("adapter")]
    return adapters[-1] if adapters else inputs["model"]
