"""A folder is a registry: what its modules register is found by name, and beside it what other packages offer."""

import contextlib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from ablate.core.entry_points import OURS, Offer, Origin, is_ours, note, offers
from ablate.core.errors import AblateError, did_you_mean

T = TypeVar("T")

LAST = 1_000
"""Order of another package's part that has no `order` of its own: after ours."""


class UnknownName(AblateError, ValueError):
    """A name that no module of the folder registers, and no other package offers in working order."""


class Registry(Generic[T]):
    """Parts of one sort by name, in their order; those of equal order by name.

    `package` is the folder whose modules register parts, as do those of `further`; they are imported at the first
    look-up. Then come the parts that other packages offer in the entry point `group`: an entry's name is the part's
    name, its object the part; an attribute `order` says where it stands. One that cannot be used is left out, and a
    reader is told once, by the log. `problem_of` says of a name and an object why it is no part.
    """

    def __init__(
        self,
        noun: str,
        package: str,
        group: str | None = None,
        problem_of: Callable[[str, Any], str | None] = lambda _, part: (
            None if callable(part) else "it cannot be called"
        ),
        further: Sequence[str] = (),
    ) -> None:
        self.noun = noun
        self._packages = (package, *further)
        self.group = group
        self._problem_of = problem_of
        self._parts: dict[str, T] = {}
        self._orders: dict[str, int] = {}
        self._origins: dict[str, Origin] = {}
        """Of other packages' parts."""
        self._refused: dict[str, str] = {}
        """Name that another package offers -> why it cannot be used."""
        self._is_loaded = False

    def register(self, name: str, *, order: int = 0) -> Callable[[T], T]:
        """Decorator that files a part under a name. Raises ValueError when the name is taken."""

        def add(part: T) -> T:
            if name in self._parts:
                raise ValueError(f"two {self.noun}s are named {name!r}")
            self._parts[name], self._orders[name] = part, order
            return part

        return add

    def __getitem__(self, name: str) -> T:
        self._load()
        if name not in self._parts:
            refused = f" But {self._refused[name]}" if name in self._refused else ""
            raise UnknownName(f"unknown {self.noun} {name!r}.{did_you_mean(name, self._parts)}{refused}")
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._parts, key=lambda name: (self._orders[name], name)))

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._parts

    def order(self, name: str) -> int:
        """-> where a part stands among the others."""
        self._load()
        return self._orders[name]

    def origin(self, name: str) -> Origin:
        """-> the package that a part comes from."""
        self._load()
        return self._origins.get(name, OURS)

    def offered(self) -> tuple[Offer, ...]:
        """-> what other packages offer, in working order or not; nothing is imported."""
        return offers(self.group) if self.group else ()

    def packages(self) -> dict[str, str]:
        """-> name -> version of the other packages that parts come from."""
        self._load()
        return {origin.package: origin.version for origin in self._origins.values()}

    def _load(self) -> None:
        if self._is_loaded:
            return
        self._is_loaded = True
        for package in self._packages:
            for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
                importlib.import_module(f"{package}.{module.name}")
        for offer in self.offered():
            self._take(offer)

    def _take(self, offer: Offer) -> None:
        """Files another package's part, or says why not."""
        if not offer.origin.version:
            return self._refuse(offer, "its package's metadata tell no version")
        try:
            with contextlib.redirect_stdout(sys.stderr):  # what it prints is no part of what a verb prints
                part = offer.load()
                problem = self._problem_of(offer.name, part)
                order = getattr(part, "order", LAST)
        except (Exception, SystemExit) as error:  # code of others: whatever it does, ours goes on
            return self._refuse(offer, f"{type(error).__name__}: {error}")
        known = self._parts.get(offer.name)
        if known is not None and (known is not part or is_ours(part)):  # the same: its module has a `register`, too
            problem = f"the name is taken by {self._origins.get(offer.name, OURS)}"
        elif not isinstance(order, int):
            problem = f"its order is no whole number: {order!r}"
        if problem:
            return self._refuse(offer, problem)
        self._parts[offer.name] = part
        self._orders.setdefault(offer.name, order)
        self._origins[offer.name] = offer.origin
        return None

    def _refuse(self, offer: Offer, why: str) -> None:
        text = f"the {self.noun} {offer.name!r} of package {offer.origin} cannot be used: {why}"
        self._refused[offer.name] = text
        note(text)
