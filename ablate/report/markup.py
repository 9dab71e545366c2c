"""Templates filled in, and text from a study made harmless where it is put: in HTML, Markdown or LaTeX."""

import re
import unicodedata
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

MARKDOWN = re.compile(r"[\\`*\[\]<>#|$~&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""What Markdown may take for markup or math; an underscore within a word is none."""
TEX = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "…": r"\dots{}",
    "\N{MINUS SIGN}": r"$-$",
}
KNOWN_TO_TEX = frozenset("\N{EN DASH}\N{EM DASH}\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}“”•€")
"""To every LaTeX, beside ASCII and Latin-1."""
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def md(value: Any) -> str:
    """-> text that Markdown, and a table cell of it, shows as it is: one line, nothing in it is markup or math."""
    return MARKDOWN.sub(lambda match: ENTITIES.get(match[0], f"\\{match[0]}"), " ".join(str(value).split()))


def tex(value: Any) -> str:
    """-> text that LaTeX shows as it is: pdfLaTeX too, where its letters are of Europe's west.

    What is no letter of any script, an emoji or a mark that turns the line round, stands as its number.
    """
    shown = "".join(map(_tex_letter, " ".join(str(value).split())))
    return re.sub("-(?=-)", "-{}", shown)  # two hyphens would be a dash


def _tex_letter(letter: str) -> str:
    if letter in TEX:
        return TEX[letter]
    is_known = (ord(letter) < 256 and letter.isprintable()) or letter in KNOWN_TO_TEX
    is_known = is_known or unicodedata.category(letter)[0] in "LM"
    return letter if is_known else f"\\texttt{{U+{ord(letter):04X}}}"


@cache
def templates() -> "Environment":
    """-> the package's templates, sandboxed; those of HTML escape whatever is put into them."""
    from jinja2 import PackageLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(
        loader=PackageLoader("ablate.report"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = md
    return environment


def render(template: str, **values: Any) -> str:
    """-> a template of the folder `templates`, by its file's name, filled in."""
    return templates().get_template(template).render(**values)


@cache
def page_asset(name: str) -> str:
    """-> the text of a stylesheet or script that goes into pages as it is."""
    return files("ablate.report").joinpath("templates", name).read_text()
