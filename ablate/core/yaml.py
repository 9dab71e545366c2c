"""Safe YAML with positions: plain values, and for every key and value the place where it was written."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from ablate.core.errors import Place, Problem, StudyError, did_you_mean

Loc: TypeAlias = tuple[str | int, ...]
"""Keys and list indices from the top of a document down to one value."""

MAX_BYTES: Final = 1 << 20
MAX_NODES: Final = 10_000
MAX_DEPTH: Final = 64
_TAG = "tag:yaml.org,2002:"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Document:
    """What a file says, and where it says it."""

    data: Any
    keys: dict[Loc, Place] = field(default_factory=dict)
    values: dict[Loc, Place] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    """Mistakes that leave the rest readable: a key said twice, a NaN."""
    unread: frozenset[Loc] = frozenset()
    """Where a value could not be read, and nothing stands for it."""

    def place(self, loc: Loc) -> Place | None:
        """Where the value at `loc` was written, or the nearest thing around it that was."""
        around = (loc[:length] for length in range(len(loc), -1, -1))
        return next((self.values[outer] for outer in around if outer in self.values), None)

    def key_place(self, loc: Loc) -> Place | None:
        """Where the key of the value at `loc` was written; the value's own place in a list."""
        return self.keys.get(loc) or self.place(loc)


def read(path: Path) -> Document:
    """Raises StudyError for a file that is missing, too large, not UTF-8 or not YAML."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        hint = did_you_mean(path.name, (near.name for near in path.parent.glob("*.yaml")))
        raise _error(None, f"{path}: there is no such file.{hint}") from error
    except OSError as error:
        raise _error(None, f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    if len(raw) > MAX_BYTES:
        raise _error(Place(str(path), 1, 1), f"the file is larger than {MAX_BYTES} bytes, the most that is read")
    return parse(_decoded(raw, str(path)), lambda line, column: Place(str(path), line, column))


def parse(text: str, place: Callable[[int, int], Place]) -> Document:
    """YAML text -> its document; `place` makes a place from line and column. Raises StudyError."""
    try:
        loader = _Loader(text, place)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        where = place(before.count("\n") + 1, error.position - before.rfind("\n"))
        raise _error(where, f"the character U+{ord(text[error.position]):04X} cannot stand in YAML") from error
    return _Nodes(loader).document(loader.composed())


def dump(value: Any) -> str:
    """-> YAML text that `parse` reads back as it was."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
    return str(text)


def _decoded(raw: bytes, name: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        message = f"byte 0x{raw[error.start]:02x} is not UTF-8: save the file as UTF-8"
        raise _error(Place(name, line, column), message) from error


def _error(place: Place | None, message: str) -> StudyError:
    return StudyError([Problem(place, message)])


class _Resolver(yaml.resolver.BaseResolver):
    """YAML 1.2's plain values: `1e-4` is a number; `on`, `yes` and dates are text."""


for _name, _first, _pattern in (
    ("bool", "tTfF", r"true|True|TRUE|false|False|FALSE"),
    ("null", "~nN", r"~|null|Null|NULL"),
    ("null", "", r""),
    ("int", "-+0123456789", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    ("float", "-+.0123456789", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"),
    ("float", "-+.", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
):
    _Resolver.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), list(_first) or [""])


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would read as something else than text."""

    yaml_implicit_resolvers = _Resolver.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> MappingNode:
        return super().represent_mapping(tag, mapping, flow_style=False)


class _Loader(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, yaml.composer.Composer, _Resolver):
    """Composes nodes within limits; a file that runs into one is refused before it costs anything."""

    def __init__(self, text: str, place: Callable[[int, int], Place]) -> None:
        self.make_place = place
        self.depth = self.num_nodes = 0
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        yaml.composer.Composer.__init__(self)
        _Resolver.__init__(self)

    def composed(self) -> Node | None:
        """-> the top node, None for an empty file. Raises StudyError."""
        try:
            return self.get_single_node()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise _error(self.place(mark), _syntax(error)) from error
        except (ValueError, OverflowError) as error:
            raise _error(self.place(self.get_mark()), f"an escape that stands for no character: {error}") from error

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self.depth += 1
        self.num_nodes += 1
        if self.depth > MAX_DEPTH:
            self.refuse(mark, f"nested deeper than {MAX_DEPTH} levels, the most that is read")
        if self.num_nodes > MAX_NODES:
            self.refuse(mark, f"more than {MAX_NODES} values, the most that is read")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def place(self, mark: Any) -> Place:
        return self.make_place(mark.line + 1, mark.column + 1)

    def refuse(self, mark: Any, message: str) -> NoReturn:
        raise _error(self.place(mark), message)


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = (error.problem or error.context or "cannot be read").strip()
    if "'\\t'" in problem:
        return "a tab cannot indent YAML: use spaces"
    if "found undefined alias" in problem:
        return f"{problem.replace('found undefined alias', 'unknown alias')}: no anchor of this name (&name) before it"
    if problem == "but found another document":
        return "a second document (---) begins here: a file is one document"
    return f"not YAML: {': '.join(filter(None, (error.context, problem)))}"


class _Nodes:
    """Nodes -> values and places, aliases written out."""

    def __init__(self, loader: _Loader) -> None:
        self.loader = loader
        self.keys: dict[Loc, Place] = {}
        self.values: dict[Loc, Place] = {}
        self.problems: list[Problem] = []
        self.unread: set[Loc] = set()
        self.open: list[Node] = []
        self.num_values = 0

    def document(self, node: Node | None) -> Document:
        data = None if node is None else self.value(node, ())
        return Document(data, self.keys, self.values, tuple(self.problems), frozenset(self.unread))

    def value(self, node: Node, loc: Loc) -> Any:
        self.num_values += 1
        if self.num_values > MAX_NODES:
            self.loader.refuse(node.start_mark, f"more than {MAX_NODES} values once aliases are written out")
        if node in self.open:
            self.loader.refuse(node.start_mark, "an anchor that contains an alias of itself never ends")
        if len(loc) > MAX_DEPTH:
            self.loader.refuse(node.start_mark, f"nested deeper than {MAX_DEPTH} levels once aliases are written out")
        self.values.setdefault(loc, self.loader.place(node.start_mark))
        self.open.append(node)
        value = self.plain_value(node, loc)
        self.open.pop()
        return value

    def plain_value(self, node: Node, loc: Loc) -> Any:
        if isinstance(node, MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node, loc)
        if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(item, (*loc, index)) for index, item in enumerate(node.value)]
        if isinstance(node, ScalarNode) and node.tag.removeprefix(_TAG) in _SCALARS:
            return self.scalar(node, loc)
        self.unread.add(loc)
        self.wrong(node, f"the tag {node.tag.replace(_TAG, '!!')} is not allowed: plain values only")
        return None

    def mapping(self, node: MappingNode, loc: Loc) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.key(key_node)
            if key is None:
                continue
            if key in mapping:
                first = self.keys[(*loc, key)]
                self.wrong(key_node, f"{key!r} is said twice, first in line {first.line}: keep one")
                continue
            self.keys[(*loc, key)] = self.loader.place(key_node.start_mark)
            mapping[key] = self.value(value_node, (*loc, key))
        return mapping

    def key(self, node: Node) -> str | None:
        value = self.scalar(node) if isinstance(node, ScalarNode) else None
        if isinstance(value, str) and value != "<<":
            return value
        if value == "<<":
            self.wrong(node, "`<<` is not read here: write the keys out; a study takes over another file by `extends:`")
        elif isinstance(node, ScalarNode):
            self.wrong(node, f"a key is text, and {node.value[:40] or 'nothing'} is not: put it in quotes")
        else:
            self.wrong(node, "a key is text, not a list or mapping")
        return None

    def scalar(self, node: ScalarNode, loc: Loc = ()) -> Any:
        """-> the value; a place other than the top of the document is noted where it cannot be read."""
        text, num_problems = node.value, len(self.problems)
        value = None
        try:
            value = _SCALARS.get(node.tag.removeprefix(_TAG), str)(text)
        except (ValueError, KeyError):
            self.wrong(node, f"{text[:40]!r} cannot be read as {node.tag.removeprefix(_TAG)}")
        if isinstance(value, float) and not math.isfinite(value):
            self.wrong(node, f"{text[:40]} is not a finite number")
            value = None
        if isinstance(value, str) and (bad := _CONTROL.search(value)):
            self.wrong(node, f"the character U+{ord(bad[0]):04X} cannot stand in a text")
        self.unread |= {loc} if loc and len(self.problems) > num_problems else set()
        return value

    def wrong(self, node: Node, message: str) -> None:
        self.problems.append(Problem(self.loader.place(node.start_mark), message))


def _int(text: str) -> int:
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


def _null(text: str) -> None:
    if text not in ("", "~", "null", "Null", "NULL"):
        raise ValueError(text)


_SCALARS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": _int,
    "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "null": _null,
}
