"""Scores that others published, found by the recipe they were made with, to be held beside ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.errors import AblateError
from ablate.spec.cells import Row
from ablate.spec.schema import REFERENCES, Distill
from ablate.spec.yaml import read

ALWAYS_COMPARED = ("loss", "temperature", "scale_by_t2")
"""Fields of a distillation that an entry may leave out only where ours has the default."""


@dataclass(frozen=True)
class Published:
    """A file of published scores."""

    source: str
    pairs: Mapping[str, Mapping[str, Any]]
    columns: tuple[str, ...]

    def scores(self, row: Row) -> Mapping[str, float]:
        """-> task/metric -> the score published for this row's recipe; empty where there is none."""
        of_pair = self.pairs.get(row.setting.pair, {})
        if row.model in REFERENCES:
            return self._named(of_pair.get(row.model, ()))
        entry = next((entry for entry in of_pair.get("kd", ()) if _is_same_recipe(entry, row)), None)
        return self._named(entry["scores"]) if entry else {}

    def _named(self, scores: Any) -> Mapping[str, float]:
        return dict(zip(self.columns, map(float, scores), strict=True)) if scores else {}


def _is_same_recipe(entry: Mapping[str, Any], row: Row) -> bool:
    """What the entry says must be ours; what our row is about, the entry must say."""
    ours, said = row.setting.distill, {name: value for name, value in entry.items() if name != "scores"}
    axes = {path.rpartition(".")[2] for path in row.values} - {"pair"}
    unsaid = [name for name in ALWAYS_COMPARED if name not in said]
    return (
        axes <= said.keys()
        and all(getattr(ours, name) == getattr(Distill(), name) for name in unsaid)
        and all(getattr(ours, name, None) == value for name, value in said.items())
    )


def read_published(path: str | None) -> Published | None:
    """-> the file of published scores that a study names. Raises AblateError where it is not one."""
    if path is None:
        return None
    try:
        content = read(Path(path)).data
        pairs = {name: of for name, of in content.items() if isinstance(of, dict)}
        published = Published(str(content.get("source", path)), pairs, tuple(map(str, content["columns"])))
        _check(published)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AblateError(
            f"{path}: not a file of published scores ({error}). It has `columns: [task/metric, ...]` and, for each "
            "pair, rows such as `student/baseline: [scores]` and `kd: [{lr: 3e-4, kd_ratio: 0.5, scores: [...]}]`"
        ) from error
    return published


def _check(published: Published) -> None:
    for name, of_pair in published.pairs.items():
        rows = [scores for row, scores in of_pair.items() if row != "kd"]
        for scores in [*rows, *(entry["scores"] for entry in of_pair.get("kd", ()))]:
            if len(scores) != len(published.columns):
                raise ValueError(f"{name}: {len(scores)} scores for {len(published.columns)} columns")
            list(map(float, scores))
