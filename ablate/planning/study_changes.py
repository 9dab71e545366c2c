"""In what a study differs from how it was run last: told when it is run again, or spoken of."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ablate.core.package import EMBEDDED
from ablate.study.local import BUILTIN
from ablate.study.schema import Study

MAX_SHOWN = 4
"""Settings that are named; of more, how many there are."""
MAX_VALUE = 40
_MISSING = object()


class LastRun(NamedTuple):
    """How a study was run last."""

    study: Study | None
    """None where this version cannot read it."""
    overrides: tuple[str, ...]


def changes(last: LastRun, study: Study, overrides: Sequence[str]) -> str | None:
    """-> "since the last run, without --set: distill.lr: 0.001 -> 0.002", or None where nothing has changed."""
    differing = list(_differing(_plain(last.study), _plain(study))) if last.study else []
    settings = [f"{'.'.join(map(str, loc))}: {_text(one)} -> {_text(other)}" for loc, one, other in differing]
    is_same_command = tuple(overrides) == last.overrides
    if not settings:
        return None if is_same_command else f"the last run was {set_words(last.overrides)}, which comes to the same"
    since = "since the last run" + ("" if is_same_command else f", {set_words(last.overrides)}")
    more = f" and {len(settings) - MAX_SHOWN} more" if len(settings) > MAX_SHOWN else ""
    return f"{since}, the study has changed: {'; '.join(settings[:MAX_SHOWN])}{more}"


def set_words(overrides: Sequence[str]) -> str:
    """-> "with --set a=1 --set b=2", or "without --set"."""
    return "with " + " ".join(f"--set {one}" for one in overrides) if overrides else "without --set"


def _plain(study: Study) -> Any:
    return study.model_dump(mode="json")


def _differing(before: Any, now: Any, loc: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from _differing(before.get(key, _MISSING), now.get(key, _MISSING), (*loc, key))
    elif _as_said(before) != _as_said(now):
        yield loc, _as_said(before), _as_said(now)


def _as_said(value: Any) -> Any:
    """-> a file of the embedded study by its builtin name, wherever the package lay then; the rest as it is."""
    embedded = EMBEDDED.fullmatch(value) if isinstance(value, str) else None
    return f"{BUILTIN}{embedded[1]}" if embedded else value


def _text(value: Any) -> str:
    if value is _MISSING:
        return "not there"
    text = "none" if value is None else str(value)
    if len(text) <= MAX_VALUE:
        return text
    return f"...{text[3 - MAX_VALUE :]}" if text.startswith("/") else f"{text[: MAX_VALUE - 3]}..."
