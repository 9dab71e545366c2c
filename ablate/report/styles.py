"""What a report's figures are made for: a screen, or papers too."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from ablate.core.errors import AblateError, did_you_mean

STYLES: Final = ("screen", "paper")
_is_paper: ContextVar[bool] = ContextVar("is_paper", default=False)


def style_named(text: str) -> str:
    """-> the style. Raises AblateError for one that there is not."""
    if text not in STYLES:
        raise AblateError(
            f"--style {text}: a report has no style {text!r}.{did_you_mean(text, STYLES)} Possible: {', '.join(STYLES)}"
        )
    return text


@contextmanager
def drawn_for(style: str) -> Iterator[None]:
    """Within it figures are made for papers too, where that is the style."""
    token = _is_paper.set(style == "paper")
    try:
        yield
    finally:
        _is_paper.reset(token)


def is_paper() -> bool:
    return _is_paper.get()
