"""A folder is a registry: every module in it is imported once, and what it registers is found by name."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ablate.core.errors import AblateError, did_you_mean

T = TypeVar("T")


class UnknownName(AblateError, ValueError):
    """A name that no module of the folder registers."""


class Registry(Generic[T]):
    """Parts of one sort by name, in the order of their names.

    `package` is the folder whose modules register parts; they are imported at the first look-up.
    """

    def __init__(self, noun: str, package: str) -> None:
        self.noun = noun
        self.package = package
        self._parts: dict[str, T] = {}
        self._is_loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files a part under a name. Raises ValueError when the name is taken."""

        def add(part: T) -> T:
            if name in self._parts:
                raise ValueError(f"two {self.noun}s are named {name!r}")
            self._parts[name] = part
            return part

        return add

    def __getitem__(self, name: str) -> T:
        self._load()
        if name not in self._parts:
            raise UnknownName(f"unknown {self.noun} {name!r}.{did_you_mean(name, self._parts)}")
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._parts))

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._parts

    def _load(self) -> None:
        if self._is_loaded:
            return
        self._is_loaded = True
        folder = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(folder.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
