"""What other installed packages offer us, as their metadata say: nothing of theirs is imported before it is loaded."""

import logging
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class Origin(NamedTuple):
    """The package (distribution) that a part comes from."""

    package: str
    version: str = ""
    """Empty of our own parts: it is this package's."""

    def __str__(self) -> str:
        return f"{self.package} {self.version}".strip()


OURS = Origin("ablate")


class Offer(NamedTuple):
    """One part that another package offers."""

    name: str
    origin: Origin
    folder: str
    """Where the package is found: an entry of sys.path."""
    load: Callable[[], Any]
    """Imports it. Raises whatever its code raises."""


@cache
def offers(group: str) -> tuple[Offer, ...]:
    """-> what is offered in an entry point group, sorted by name and package: the same wherever sys.path begins."""
    from importlib.metadata import entry_points  # a look-up pays for it, `--help` does not

    return tuple(sorted(map(_offer, entry_points(group=group)), key=lambda offer: (offer.name, offer.origin)))


def note(text: str) -> None:
    """Tells a reader of something that stops nothing: a line on stderr, unless a program takes the log elsewhere."""
    logging.getLogger("ablate").warning("note: %s", text)


def is_ours(part: object) -> bool:
    """Whether it is code of this package."""
    return str(getattr(part, "__module__", "")).partition(".")[0] == OURS.package


def versions_in(settings: Any) -> dict[str, str]:
    """-> package -> version, of every `origin` in the settings of a stage's payload."""
    if not isinstance(settings, Mapping):
        return {}
    origin = settings.get("origin")
    own = {origin["package"]: origin["version"]} if isinstance(origin, Mapping) else {}
    return own | {name: version for value in settings.values() for name, version in versions_in(value).items()}


def _offer(entry: "EntryPoint") -> Offer:
    dist = entry.dist
    assert dist is not None  # of what importlib finds by itself
    try:
        name, version = dist.name, dist.version
    except Exception:  # half removed: a folder that has entry points still, and no METADATA
        name = version = ""
    return Offer(entry.name, Origin(name or "without a name", version or ""), str(dist.locate_file("")), entry.load)
