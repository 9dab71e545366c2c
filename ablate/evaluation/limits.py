"""A task's patterns and templates come to an end: each search of a text, each text from a template, within a limit."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from lm_eval import utils
from lm_eval.api import metrics
from lm_eval.filters import extraction

from ablate.core.time_limit import LIMIT_S, Watch

_SEARCHES = frozenset({"findall", "fullmatch", "match", "search", "split", "sub", "subn"})
_SHOWN = 200


@contextmanager
def endless_is_ended() -> Iterator[None]:
    """While it lasts, a search or a template of a task that computes for longer raises TooLong, which names it."""
    modules: tuple[Any, ...] = (extraction, metrics, utils)
    env, watch = utils.env, Watch(LIMIT_S)
    for module in modules:
        module.re = _WatchedRe(watch)
    env.from_string = partial(_watched_template, env.from_string, watch)
    try:
        with watch.looking():
            yield
    finally:
        vars(env).pop("from_string", None)
        for module in modules:
            module.re = re


class _WatchedRe:
    """The module `re`, whose searches are watched."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def compile(self, pattern: Any, flags: int = 0) -> "_WatchedPattern":
        return _WatchedPattern(re.compile(pattern, flags), self._watch)

    def __getattr__(self, name: str) -> Any:
        return partial(self._search, name) if name in _SEARCHES else getattr(re, name)

    def _search(self, name: str, pattern: Any, *arguments: Any, **named: Any) -> Any:
        return self._watch.call(partial(_words, pattern, arguments), getattr(re, name), pattern, *arguments, **named)


class _WatchedPattern:
    """A compiled pattern, whose searches are watched."""

    def __init__(self, pattern: re.Pattern[Any], watch: Watch) -> None:
        self._pattern, self._watch = pattern, watch

    def __getattr__(self, name: str) -> Any:
        search = getattr(self._pattern, name)
        return partial(self._search, search) if name in _SEARCHES else search

    def _search(self, search: Any, *arguments: Any, **named: Any) -> Any:
        return self._watch.call(partial(_words, self._pattern.pattern, arguments), search, *arguments, **named)


def _watched_template(from_string: Any, watch: Watch, source: str) -> Any:
    template = from_string(source)
    template.render = partial(watch.call, lambda: f"the template {source[:_SHOWN]!r} of the task", template.render)
    return template


def _words(pattern: Any, arguments: tuple[Any, ...]) -> str:
    text = next((one for one in reversed(arguments) if isinstance(one, str)), "")
    return (
        f"the pattern {str(pattern)[:_SHOWN]!r} of the task, searched in {text[:_SHOWN]!r} ({len(text):,} characters),"
    )
