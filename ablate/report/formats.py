"""The forms in which a report is written: a page, Markdown, LaTeX, a notebook."""

from collections.abc import Iterable
from typing import Final

from ablate.core.errors import AblateError, did_you_mean

FORMATS: Final = ("html", "md", "tex", "ipynb")
DEFAULT: Final = ("html", "md")


def formats_named(text: str) -> tuple[str, ...]:
    """`tex,html` -> those, each once, in the order of `FORMATS`. Raises AblateError for one that there is not."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in FORMATS:
            raise AblateError(
                f"--format {text}: a report has no format {name!r}.{did_you_mean(name, FORMATS)} Several: html,tex"
            )
    return in_order(names)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """-> the formats among some names, each once."""
    given = set(names)
    return tuple(name for name in FORMATS if name in given)
