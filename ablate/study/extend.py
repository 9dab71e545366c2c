"""A study's text as one tree: the file over the files it extends, and what --set says over both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ablate.core.errors import Place, Problem, StudyError
from ablate.core.yaml import Document, Loc, parse, read
from ablate.study.fields import at, locate
from ablate.study.overlays import laid_over, tree


class Edit(NamedTuple):
    """One --set."""

    text: str
    loc: Loc
    value: Any
    before: Any
    """What the file said there."""

    @property
    def place(self) -> Place:
        return _place(self.text)


def extended(path: Path, above: tuple[Path, ...] = ()) -> Document:
    """-> the file laid over what it extends. Raises StudyError for one that cannot be read or extends itself."""
    document = read(path)
    if not isinstance(document.data, dict) or "extends" not in document.data:
        return document
    value = document.data["extends"]
    names = value if isinstance(value, list) else [value]
    place = document.place(("extends",))
    if not names or not all(isinstance(name, str) and name for name in names):
        raise StudyError([*document.problems, Problem(place, "extends: a file or a list of files is expected")])
    own = {key: value for key, value in document.data.items() if key != "extends"}
    merged = Document({}, {}, {}, document.problems, document.unread)
    for index, name in enumerate(names):
        where = document.place(("extends", index)) if isinstance(value, list) else place
        merged = _over(merged, _base(path, name, where, (*above, path)))
    return _over(merged, Document(own, document.keys, document.values))


def _base(path: Path, name: str, place: Place | None, above: tuple[Path, ...]) -> Document:
    base = path.parent / name
    if base.resolve() in [one.resolve() for one in above]:
        chain = " -> ".join([*(one.name for one in above), base.name])
        raise StudyError([Problem(place, f"extends: {name} extends itself ({chain})")])
    if not base.is_file():
        raise StudyError([Problem(place, f"extends: {name} is not there (looked for {base})")])
    document = extended(base, above)
    if not isinstance(document.data, dict):
        raise StudyError([Problem(place, f"extends: {name} holds no mapping")])
    return document


def _over(below: Document, above: Document) -> Document:
    return Document(
        laid_over(below.data, above.data),
        below.keys | above.keys,
        below.values | above.values,
        (*below.problems, *above.problems),
        below.unread | above.unread,
    )


def edited(document: Document, overrides: Sequence[str]) -> tuple[Document, list[Edit]]:
    """-> the study as --set edits it. Raises StudyError with every --set that is not one."""
    edits: list[Edit] = []
    problems: list[Problem] = []
    for text in overrides:
        try:
            edit, above = _parsed(text, document)
        except StudyError as error:
            problems += error.problems
            continue
        edits.append(edit)
        document = _over(document, above)
    if problems:
        raise StudyError([*document.problems, *problems])
    return document, edits


def _parsed(text: str, document: Document) -> tuple[Edit, Document]:
    path, equals, written = text.partition("=")
    if not equals:
        raise StudyError([Problem(_place(text), "a path and a value are expected, as in --set distill.lr=1e-4")])
    if path.strip() == "extends":
        raise StudyError([Problem(_place(text), "what a study extends is said in its file")])
    try:
        loc = locate(path.strip(), document.data)
    except ValueError as error:
        raise StudyError([Problem(_place(text), str(error))]) from error
    value = parse(written, lambda _line, _column: _place(text))
    above = Document(
        tree([(loc, value.data)]),
        {loc: _place(text)} | {(*loc, *inner): place for inner, place in value.keys.items()},
        {(*loc, *inner): place for inner, place in value.values.items()} | {loc: _place(text)},
        value.problems,
        frozenset((*loc, *inner) for inner in value.unread),
    )
    return Edit(text, loc, value.data, at(document.data, loc)), above


def _place(text: str) -> Place:
    return Place(f"--set {text}", 0, 0)
