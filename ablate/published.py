"""Scores that others published, found by the recipe they were made with, to be held beside ours."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ablate.errors import AblateError
from ablate.model import RUNTIME, role_of
from ablate.spec.cells import Row
from ablate.spec.schema import REFERENCES, Distill
from ablate.spec.words import findings
from ablate.spec.yaml import read

ALWAYS_COMPARED = ("loss", "temperature", "scale_by_t2")
"""Fields of a distillation that an entry may leave out only where ours has the default."""
TOLD_IN_THE_FOOT = ("data", "evaluate", "dtype")
"""What an ablation sets here, the table says in words beside the published scores."""


@dataclass(frozen=True)
class Published:
    """A file of published scores."""

    source: str
    pairs: Mapping[str, Mapping[str, Any]]
    columns: tuple[str, ...]

    def scores(self, row: Row, also_set: Iterable[str] = ()) -> Mapping[str, float]:
        """-> task/metric -> the score published for this row's recipe; empty where there is none.

        `also_set`: the dotted paths that the row's ablation sets for all its rows.
        """
        of_pair = self.pairs.get(row.setting.pair, {})
        if row.model in REFERENCES:
            return self._named(of_pair.get(row.model, ()))
        paths = [*row.values, *(path for path in also_set if path.partition(".")[0] not in TOLD_IN_THE_FOOT)]
        about = {field for path in paths if (field := _field(path))}
        entry = next((entry for entry in of_pair.get("kd", ()) if _is_same_recipe(entry, row, about)), None)
        return self._named(entry["scores"]) if entry else {}

    def _named(self, scores: Any) -> Mapping[str, float]:
        return dict(zip(self.columns, map(float, scores), strict=True)) if scores else {}


def _is_same_recipe(entry: Mapping[str, Any], row: Row, about: set[str]) -> bool:
    """What the entry says must be ours; what our row is about, the entry must say."""
    ours, theirs, said = row.setting.distill, _recipe(entry), entry.keys() - {"scores"}
    return about <= said and all(getattr(ours, name) == getattr(theirs, name) for name in {*said, *ALWAYS_COMPARED})


def _recipe(entry: Mapping[str, Any]) -> Distill:
    """Raises ValidationError for an entry that says what no distillation has."""
    return Distill.model_validate({name: value for name, value in entry.items() if name != "scores"})


def _field(path: str) -> str | None:
    """-> which field of a distillation a dotted path says; a path of anything else whole, for no entry says that.

    None where an entry need not say it: the pair is where it stands, and how a result is made changes none.
    """
    head, _, rest = path.partition(".")
    if head == "pairs" and ".distill." in rest:
        head, rest = "distill", rest.partition(".distill.")[2]
    if head in ("distill", "train"):
        field = rest.partition(".")[0]
        return None if field == "pair" or role_of(Distill, field) is RUNTIME else field
    return path


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
        for entry in of_pair.get("kd", ()):
            _check_recipe(name, entry)
        rows = [scores for row, scores in of_pair.items() if row != "kd"]
        for scores in [*rows, *(entry["scores"] for entry in of_pair.get("kd", ()))]:
            if len(scores) != len(published.columns):
                raise ValueError(f"{name}: {len(scores)} scores for {len(published.columns)} columns")
            list(map(float, scores))


def _check_recipe(pair: str, entry: Mapping[str, Any]) -> None:
    try:
        _recipe(entry)
    except ValidationError as error:
        told = [finding.message for finding in findings(error, {"distill": entry}, ("distill",))]
        raise ValueError(f"{pair}: kd: {'; '.join(told)}") from error
