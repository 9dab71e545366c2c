"""Reads a study file, with what it extends and what --set edits; reports all mistakes at once, each with its place."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ablate.core.errors import Place, Problem, StudyError
from ablate.core.yaml import Document, Loc, read
from ablate.study.checks import chat_findings, edits_findings, study_findings
from ablate.study.extend import Edit, edited, extended
from ablate.study.fields import at, fields_of
from ablate.study.local import with_local_paths
from ablate.study.resolve import Resolver
from ablate.study.schema import Study
from ablate.study.words import Finding, findings, unknown_key


def load(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Reads a study, edited by overrides such as "train.lr=1e-4". Raises StudyError with every mistake in it."""
    document = extended(Path(path))
    if not isinstance(document.data, dict):
        what = "the file is empty" if document.data is None else "this is no mapping"
        need = "a study has name, data, pairs and ablations; `ablate new` writes one to start from"
        raise StudyError([*document.problems, Problem(document.place(()) or Place(str(path), 1, 1), f"{what}: {need}")])
    document, edits = edited(document, overrides)
    data, mistakes = with_local_paths(document, Path(path).parent)
    data, unsayable = _without_record_fields(data)
    study, wrong = _checked(data, edits)
    mistakes += [*unsayable, *wrong]
    problems = [*document.problems, *_problems(document, mistakes), *_published(data.get("published"))]
    if problems or study is None:
        raise StudyError(sorted(dict.fromkeys(problems), key=lambda problem: problem.place or Place("", 0, 0)))
    return study


def _without_record_fields(data: dict[Any, Any]) -> tuple[dict[Any, Any], list[Finding]]:
    """-> the study without what only a record of a run may say, and that as mistakes."""
    names = [name for name in Study.model_fields if name in data and name not in fields_of(Study)]
    mistakes = [unknown_key((name,), data) for name in names]
    return {name: value for name, value in data.items() if name not in names}, mistakes


def _published(path: Any) -> Iterator[Problem]:
    """-> why a file of published scores is no YAML; what it says is the report's affair."""
    if isinstance(path, str) and Path(path).is_file():
        try:
            yield from read(Path(path)).problems
        except StudyError as error:
            yield from error.problems


def _checked(data: Any, edits: Sequence[Edit]) -> tuple[Study | None, list[Finding]]:
    """-> the study, and all that is wrong with it.

    What the schema refuses is left out and the rest is checked nevertheless, so that a reader sees all at once.
    """
    try:
        study = Study.model_validate(data)
    except ValidationError as error:
        wrong = list(findings(error, data))
        return None, [*wrong, *_findings_in_the_rest(data, wrong)]
    resolver = Resolver(study)
    return study, list(study_findings(resolver)) or [*chat_findings(resolver), *edits_findings(resolver, edits)]


def _findings_in_the_rest(data: Any, wrong: Sequence[Finding]) -> Iterator[Finding]:
    left_out = [finding.loc for finding in wrong]
    for loc in left_out:
        data = _without(data, loc)
    try:
        study = Study.model_validate(data)
    except ValidationError:
        return
    parts = {loc[:2] if loc[0] in ("ablations", "pairs") else loc for loc in left_out if loc}
    for finding in study_findings(Resolver(study)):
        if not any(finding.loc[: len(part)] == part for part in parts):
            yield finding


def _without(data: Any, loc: Loc) -> Any:
    """-> the data without what stands at a place; of a list, the whole list."""
    depth = next((index for index, key in enumerate(loc) if isinstance(key, int)), len(loc)) - 1
    if depth < 0 or not isinstance(around := at(data, loc[:depth]), dict):
        return data
    smaller: Any = {key: value for key, value in around.items() if key != loc[depth]}
    for key in reversed(loc[:depth]):
        depth -= 1
        smaller = at(data, loc[:depth]) | {key: smaller}
    return smaller


def _problems(document: Document, wrong: Iterable[Finding]) -> Iterator[Problem]:
    """-> what was found, each with its place; not what follows from a value that could not be read."""
    for finding in wrong:
        loc = finding.loc
        follows = any(unread[: len(loc)] == loc[: len(unread)] for unread in document.unread)
        if finding.is_key or not follows:
            place = document.key_place(loc) if finding.is_key else document.place(loc)
            yield Problem(place, finding.message, finding.num_cells)
