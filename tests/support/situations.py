"""Ablations in every situation that the report has words for: real rows, made-up contrasts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ablate.report.answer_facts import Facts
from ablate.report.formatting import plain
from ablate.results.best_rows import Candidate, Contest
from ablate.results.collect import AblationResult, Metric, Results, RowResult, collect
from ablate.results.effects import Effect
from ablate.results.gap_recovered import Gap
from ablate.results.marks import Mark
from ablate.results.paired import Contrast
from ablate.results.verdicts import Finding
from ablate.study.names import value_text
from support.report_study import bench

TRUTH = Metric("truthfulqa_mc2", "acc")
SWAG = Metric("hellaswag", "acc_norm")
PERPLEXITY = Metric("wikitext", "word_perplexity")
TEACHERS = MappingProxyType({"grid": {"distill.teacher": ["baseline", "finetuned"]}})
RATES = MappingProxyType({"grid": {"distill.lr": [2e-2, 4e-3, 1e-3, 1e-4]}})
RATIOS = MappingProxyType({"grid": {"distill.kd_ratio": [0.25, 0.5, 0.75, 1.0]}})
LOSSES = MappingProxyType({"grid": {"distill.loss": ["forward_kl", "reverse_kl", "jsd"]}})
BOTH = MappingProxyType(
    {"grid": {"distill.teacher": ["baseline", "finetuned"], "distill.student": ["baseline", "finetuned"]}}
)
PAIRS = MappingProxyType({"grid": {"distill.pair": ["llama", "qwen2"], "distill.teacher": ["baseline", "finetuned"]}})
ALONE = MappingProxyType({"title": "A closer pair"})


@dataclass
class Builder:
    """Fills in a situation: contrasts in points of the primary metric unless another is named."""

    results: Results
    effects: list[Effect]
    findings: list[Finding]
    gaps: dict[str, Gap]
    marks: list[Mark]
    bent: Sequence[Effect] = ()
    contests: list[Contest] = field(default_factory=list)
    elsewhere: list[Effect] = field(default_factory=list)

    @property
    def ablation(self) -> AblationResult:
        return self.results.ablations[0]

    def row(self, **values: Any) -> RowResult:
        return next(
            row for row in self.distilled if all(row.row.values[f"distill.{k}"] == v for k, v in values.items())
        )

    @property
    def distilled(self) -> list[RowResult]:
        return [row for row in self.ablation.rows if row.row.model == "distill"]

    def effect(
        self,
        kind: Any,
        path: str | tuple[str, ...],
        plus: Any,
        minus: Any,
        numbers: tuple[float, float, float],
        verdict: Any,
        *,
        metric: Metric = TRUTH,
        pair: str = "llama",
        tried: int = 1,
    ) -> None:
        paths = (path,) if isinstance(path, str) else path
        value, low, high = (number / 100 if metric != PERPLEXITY else number for number in numbers)
        contrast = Contrast(value, max(high - low, 0.0) / 4, 50.0, 100, None, verdict != "suggestive")
        rows = self._weighted(paths, plus, minus, pair)
        self.effects.append(
            Effect(metric, kind, paths, _text(plus), _text(minus), rows, contrast, 0.01, low, high, verdict)
        )

    def _weighted(self, paths: Sequence[str], plus: Any, minus: Any, pair: str) -> list[tuple[RowResult, float]]:
        rows = [row for row in self.distilled if row.row.setting.pair == pair]
        sides = {1.0: plus, -1.0: minus}
        if not paths:
            return list(zip(rows, (1.0, -1.0), strict=True))
        own = [(row, sign) for row in rows for sign, value in sides.items() if row.row.values.get(paths[-1]) == value]
        own = own or [(row, sign) for row, sign in zip(rows, (1.0, -1.0), strict=False)]
        num = {sign: sum(other == sign for _, other in own) for sign in sides}
        return [(row, sign / num[sign]) for row, sign in own]

    def against(self, row: RowResult, numbers: tuple[float, float, float], verdict: Any, why: str = "") -> None:
        """Says what a row comes to against its control."""
        value, low, high = (number / 100 for number in numbers)
        contrast = None if why else Contrast(value, (high - low) / 4, 50.0, 100, None, verdict != "suggestive")
        self.findings.append(Finding(row, TRUTH, verdict, why, contrast, 0.01, low, high))

    def may_be_best(self, *rows: RowResult) -> None:
        """Says which rows make the set of the best; the others of the table, its control among them, do not."""
        competing = [self.ablation.control_of(rows[0].row), *self.distilled]
        candidates = tuple(Candidate(row, 1 / len(rows), any(row is one for one in rows)) for row in competing if row)
        self.contests.append(Contest(TRUTH, candidates, (), True))

    def recovers(self, row: RowResult, *percent: float, why: str = "") -> None:
        value, low, high = (number / 100 for number in (percent or (math.nan,) * 3))
        control = self.ablation.control_of(row.row)
        teacher = next(one for one in self.ablation.rows if one.row.model == "teacher/finetuned")
        self.gaps[row.row.name] = Gap(value, low, high, why, (teacher,), control)

    def facts(self) -> Facts:
        return Facts(
            self.ablation,
            self.effects,
            self.findings,
            lambda row, _: self.gaps.get(row.row.name),
            self.marks,
            self.bent,
            contests=self.contests,
            elsewhere=self.elsewhere,
        )


def _text(value: Any) -> str:
    """-> as the study's own contrasts have it."""
    return value_text(value) if isinstance(value, float) else plain(value)


def begun(root: Path, ablation: Mapping[str, Any], *, metric: Metric = TRUTH, num_done: int | None = None) -> Builder:
    """-> a study of one ablation whose cells are done, or so many of them."""
    study = bench(root, ablations={"one": dict(ablation)}, report={"primary": str(metric)}, seeds=[0])
    for cell in study.plan().cells[:num_done]:
        if cell.trained:
            study.commit_files(cell.trained, {})
        study.commit_evaluation(cell, edit=_with_perplexity if metric == PERPLEXITY else None)
    return Builder(collect(study.plan()), [], [], {}, [])


def _with_perplexity(results: dict[str, Any]) -> None:
    results["tasks"]["wikitext"] = {
        "version": 2,
        "n": 62,
        "metrics": {"word_perplexity": {"value": 12.5, "stderr": None}},
        "higher_is_better": {"word_perplexity": False},
    }
