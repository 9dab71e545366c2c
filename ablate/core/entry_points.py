"""What other installed packages offer us, as their metadata say: nothing of theirs is imported before it is loaded."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints


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


def offers(group: str) -> list[Offer]:
    """-> what is offered in an entry point group, sorted by name and package: the same wherever sys.path begins."""
    return sorted(map(_offer, _all().select(group=group)), key=lambda offer: (offer.name, offer.origin))


def folders(groups: tuple[str, ...]) -> list[str]:
    """-> where the packages lie that offer something in these groups, each folder once."""
    return list(dict.fromkeys(offer.folder for group in groups for offer in offers(group)))


def versions_in(settings: Any) -> dict[str, str]:
    """-> package -> version, of every `origin` in the settings of a stage's payload."""
    if not isinstance(settings, Mapping):
        return {}
    origin = settings.get("origin")
    own = {origin["package"]: origin["version"]} if isinstance(origin, Mapping) else {}
    return own | {name: version for value in settings.values() for name, version in versions_in(value).items()}


@cache
def _all() -> "EntryPoints":
    from importlib.metadata import entry_points  # a look-up pays for it, `--help` does not

    return entry_points()


def _offer(entry: "EntryPoint") -> Offer:
    dist = entry.dist
    assert dist is not None  # of what importlib finds by itself
    return Offer(entry.name, Origin(dist.name, dist.version), str(dist.locate_file("")), entry.load)
