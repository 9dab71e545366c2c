"""Scores that others published, found by the recipe they were made with, to be held beside ours."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationError

from ablate.core.errors import AblateError
from ablate.core.values import RUNTIME, Frozen, role_of
from ablate.core.yaml import read
from ablate.study.cells import Row
from ablate.study.data_settings import Data
from ablate.study.evaluation_settings import Evaluate
from ablate.study.field_types import Dtype, OrNone
from ablate.study.layer import Layer
from ablate.study.overlays import stacked
from ablate.study.schema import REFERENCES
from ablate.study.training_recipes import Distill, Finetune, Train
from ablate.study.words import findings

ALWAYS_COMPARED = ("loss", "temperature", "scale_by_t2")
"""Fields of a distillation that an entry may leave out only where ours has the default."""
TOLD_IN_THE_FOOT = ("data", "evaluate", "dtype")
"""What an ablation sets here, the table says in words beside the published scores."""
NUMBERS = {"scores", "stderr"}
"""What an entry says beside its recipe."""
NO_PAIRS = ("source", "columns", "about")
"""Names in the file that no pair can have."""


class MadeWith(Frozen):
    """Settings that published scores were made with, in the words of a study, as far as they are told."""

    dtype: Dtype | None = None
    data: Annotated[dict[str, Any], Layer(Data)] = Field(default_factory=dict)
    evaluate: Annotated[dict[str, Any], Layer(Evaluate)] = Field(default_factory=dict)
    train: Annotated[dict[str, Any], Layer(Train)] = Field(default_factory=dict)
    """Of every training; what is said of one wins."""
    finetune_teacher: Annotated[dict[str, Any], Layer(Finetune)] = Field(default_factory=dict)
    finetune_student: Annotated[dict[str, Any], Layer(Finetune)] = Field(default_factory=dict)
    distill: Annotated[dict[str, Any], Layer(Distill)] = Field(default_factory=dict)


class About(Frozen):
    """What is known of how the scores came about; all of it may be left out."""

    n: tuple[int, ...] = ()
    """Questions of each column."""
    stderr: tuple[Annotated[float | None, OrNone()], ...] = ()
    """Of each column, where it is about the same for all rows; none where it follows from n."""
    versions: dict[str, int | float | str] = Field(default_factory=dict)
    """Task -> the version of its lm-eval task."""
    settings: MadeWith = Field(MadeWith(), alias="made")
    pairs: dict[str, MadeWith] = Field(default_factory=dict)
    """What a pair was made with, over what all were."""


class Theirs(NamedTuple):
    """One published score."""

    value: float
    stderr: float | None
    """As told, for the row or the column; else sqrt(p (1 - p) / (n - 1)), which is lm-eval's own of 0/1 scores and more
    than that of any others between 0 and 1; None where n is not known."""
    n: int | None


@dataclass(frozen=True)
class Published:
    """A file of published scores."""

    source: str
    pairs: Mapping[str, Mapping[str, Any]]
    columns: tuple[str, ...]
    about: About

    def settings(self, pair: str) -> Mapping[str, Any]:
        """-> part of a setting (`distill`, `evaluate`, `dtype`, ...) -> what is told of it."""
        layers = (self.about.settings, self.about.pairs.get(pair, MadeWith()))
        settings: dict[str, Any] = {"dtype": layers[1].dtype or layers[0].dtype}
        for part in ("data", "evaluate", "finetune_teacher", "finetune_student", "distill"):
            is_training = part not in ("data", "evaluate")
            recipes = [layer.train for layer in layers if is_training] + [getattr(layer, part) for layer in layers]
            settings[part] = stacked(recipes)
        return settings

    def scores(self, row: Row, also_set: Iterable[str] = ()) -> Mapping[str, Theirs]:
        """-> task/metric -> the score published for this row's recipe; empty where there is none.

        `also_set`: the dotted paths that the row's ablation sets for all its rows.
        """
        of_pair = self.pairs.get(row.setting.pair, {})
        if row.model in REFERENCES:
            return self._named(of_pair.get(row.model, ()))
        paths = [*row.values, *(path for path in also_set if path.partition(".")[0] not in TOLD_IN_THE_FOOT)]
        about = {field for path in paths if (field := _field(path))}
        entry = next((entry for entry in of_pair.get("kd", ()) if _is_same_recipe(entry, row, about)), None)
        return self._named(entry or ())

    def _named(self, entry: Any) -> Mapping[str, Theirs]:
        scores, stderr = _scores(entry)
        errors = stderr or (None,) * len(scores)
        theirs = [self._theirs(column, float(scores[column]), errors[column]) for column in range(len(scores))]
        return dict(zip(self.columns, theirs, strict=True)) if theirs else {}

    def _theirs(self, column: int, value: float, stderr: float | None) -> Theirs:
        n = self.about.n[column] if self.about.n else None
        if stderr is None and self.about.stderr:
            stderr = self.about.stderr[column]
        if stderr is None and n is not None and n > 1 and 0 <= value <= 1:
            stderr = math.sqrt(value * (1 - value) / (n - 1))
        return Theirs(value, stderr, n)


def _is_same_recipe(entry: Mapping[str, Any], row: Row, about: set[str]) -> bool:
    """What the entry says must be ours; what our row is about, the entry must say."""
    ours, theirs, fields = row.setting.distill, _recipe(entry), entry.keys() - NUMBERS
    return about <= fields and all(getattr(ours, name) == getattr(theirs, name) for name in {*fields, *ALWAYS_COMPARED})


def _recipe(entry: Mapping[str, Any]) -> Distill:
    """Raises ValidationError for an entry that says what no distillation has."""
    return Distill.model_validate({name: value for name, value in entry.items() if name not in NUMBERS})


def _scores(entry: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """-> scores and their errors, of an entry that is a list of scores or says both."""
    if isinstance(entry, Mapping):
        return tuple(entry["scores"]), tuple(None if error == "none" else error for error in entry.get("stderr") or ())
    return tuple(entry), ()


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
        pairs = {name: rows for name, rows in content.items() if isinstance(rows, dict) and name not in NO_PAIRS}
        columns = tuple(map(str, content["columns"]))
        published = Published(str(content.get("source", path)), pairs, columns, _about(content.get("about") or {}))
        _check(published)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AblateError(
            f"{path}: not a file of published scores ({error}). It has `columns: [task/metric, ...]` and, for each "
            "pair, rows such as `student/baseline: [scores]` and `kd: [{lr: 3e-4, kd_ratio: 0.5, scores: [...]}]`; "
            "`about: {n: [...], stderr: [...], versions: {...}, made: {...}}` may say how they were made"
        ) from error
    return published


def _about(about: Any) -> About:
    try:
        return About.model_validate(about)
    except ValidationError as error:
        raise ValueError("; ".join(one.message for one in findings(error, {"about": about}, ("about",)))) from error


def _check(published: Published) -> None:
    for numbers in (published.about.n, published.about.stderr):
        _check_number("about", len(numbers) or len(published.columns), published)
    for name, of_pair in published.pairs.items():
        for entry in of_pair.get("kd", ()):
            _check_recipe(name, entry)
        for entry in [*(scores for row, scores in of_pair.items() if row != "kd"), *of_pair.get("kd", ())]:
            scores, stderr = _scores(entry)
            _check_number(name, len(scores), published)
            _check_number(name, len(stderr) or len(scores), published)
            list(map(float, [*scores, *(error for error in stderr if error is not None)]))


def _check_number(name: str, number: int, published: Published) -> None:
    if number != len(published.columns):
        raise ValueError(f"{name}: {number} numbers for {len(published.columns)} columns")


def _check_recipe(pair: str, entry: Mapping[str, Any]) -> None:
    try:
        _recipe(entry)
    except ValidationError as error:
        problems = [finding.message for finding in findings(error, {"distill": entry}, ("distill",))]
        raise ValueError(f"{pair}: kd: {'; '.join(problems)}") from error
