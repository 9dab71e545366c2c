"""The page that a reader opens, report.html and report.md: the pieces of all exhibits, and how it was all done."""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ablate.core.entry_points import note
from ablate.core.errors import AblateError, grouped_by_text
from ablate.report.exhibits.base import EXHIBITS, OVERVIEWS, Piece
from ablate.report.exhibits.front_figure import front_figure
from ablate.report.findings_text import answers
from ablate.report.formats import DEFAULT
from ablate.report.formatting import listed, plural, short
from ablate.report.front_page import front_page
from ablate.report.latex import latex_files
from ablate.report.markup import page_asset, render
from ablate.report.notebook import notebook
from ablate.report.parallel_drawing import draw
from ablate.report.provenance import overrides, study_file
from ablate.report.recipes import common, recipes, sharing, sources, versions
from ablate.report.words import say
from ablate.results.collect import AblationResult, CellResult, Results

NOT_DONE = ("failed", "damaged", "diverged", "running", "blocked", "waiting")
"""In the order in which a reader wants to know of them."""


def report_files(studies: Sequence[Results], formats: Sequence[str] = DEFAULT) -> dict[str, bytes]:
    """-> the report in some of the `FORMATS`, and every file of the exhibits: path below the report folder -> content.

    Of one study, or of several in one page, whose results are then those `among_others`.
    """
    shown = [_study(results) for results in studies]
    values = {
        "title": listed(dict.fromkeys(study_values["title"] for study_values, _ in shown)),
        "shared": _shared(studies),
        "studies": [study_values for study_values, _ in shown],
        "style": page_asset("style.css"),
        "script": page_asset("page.js"),
        "allowed": script_digest(),
    }
    exhibited = {path: data for _, files in shown for path, data in files}
    written = (_in_format(name, studies, values, exhibited) for name in formats)
    return exhibited | {path: data for files in written for path, data in files.items()}


def _in_format(
    name: str, studies: Sequence[Results], values: Mapping[str, Any], exhibited: Mapping[str, bytes]
) -> dict[str, bytes]:
    match name:
        case "tex":
            return latex_files(studies)
        case "ipynb":
            return {"report.ipynb": notebook(studies, exhibited)}
        case "md":
            return {"report.md": render("report.md", **values).encode()}
        case _:
            return {"report.html": render("report.html", **values).encode()}


def _shared(studies: Sequence[Results]) -> str:
    """-> what several studies have in common."""
    works = [{stage.key for stage in results.plan.work} for results in studies]
    num = sum(sum(key in work for work in works) > 1 for key in set().union(*works))
    serve = "serves" if num == 1 else "serve"
    return f"{plural(len(studies), 'study', 'studies')}; {plural(num, 'stage')} of work {serve} more than one of them."


def _study(results: Results) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """-> what the templates show of a study, and the files of its exhibits."""
    pieces, known = draw(results)
    overviews = list(known.values())
    picture = front_figure(results)
    every = [*([picture] if picture else []), *(piece for own in pieces.values() for piece in own), *overviews]
    sections = [_section(results, ablation, pieces[ablation.name]) for ablation in results.ablations]
    values = _values(results, [piece for name, piece in known.items() if name != "running"])
    values |= {"front": front_page(results, picture), "running": known.get("running"), "ablations": sections}
    return values, _without_clashes([(path, data) for piece in every for path, data in piece.files.items()])


def _without_clashes(files: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """-> the same; of other packages' files that have one name, the first, and a reader is told.

    Raises AblateError where two of ours have one name: nothing is overwritten in silence.
    """
    others = EXHIBITS.packages() | OVERVIEWS.packages()
    for path in [path for path, num in Counter(path for path, _ in files).items() if num > 1]:
        if path.partition("/")[0] not in others:
            raise AblateError(f"two of the report's files would be {path}: rename an ablation (its results stay)")
        note(f"two exhibits of package {path.partition('/')[0]} write {path}: the first one's is kept")
    kept: dict[str, bytes] = {}
    for path, data in files:
        kept.setdefault(path, data)
    return list(kept.items())


def script_digest() -> str:
    """-> how the page's policy names its own script, so that a browser runs no other."""
    digest = hashlib.sha256(page_asset("page.js").encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _values(results: Results, overviews: list[Piece]) -> dict[str, Any]:
    study = results.study
    return {
        "title": study.title or study.name,
        "name": study.name,
        "prefix": results.prefix,
        "numbers": f"../{study.name}/" if results.prefix else "",
        "state": state_line(results.cells),
        "no_ship": say("page.no_ship"),
        "file": study_file(results.plan),
        "overrides": list(overrides(results.plan)),
        "recipes": recipes(results),
        "labels": {name: pair.label or name for name, pair in study.pairs.items()},
        "common": common(results),
        "sources": sources(results),
        "versions": versions(results),
        "sharing": sharing(results),
        "overviews": overviews,
    }


def _section(results: Results, ablation: AblationResult, pieces: list[Piece]) -> dict[str, Any]:
    picture = next((piece for piece in pieces if not piece.fold and _is_picture(piece)), None)
    return {
        "name": ablation.name,
        "title": ablation.title,
        "question": ablation.spec.question or "",
        "answers": answers(results, ablation),
        "state": state_line(ablation.cells),
        "is_done": all(cell.is_done for cell in ablation.cells),
        "picture": picture,
        "open": [piece for piece in pieces if not piece.fold and piece is not picture],
        "folded": [piece for piece in pieces if piece.fold],
        "notes": [f"{names}: {why}" for names, why in grouped_by_text(_notes(ablation.cells))],
    }


def _is_picture(piece: Piece) -> bool:
    """Whether it may stand beside the answer."""
    return any(path.startswith("figures/") for path in piece.files)


def _notes(cells: Iterable[CellResult]) -> Iterator[tuple[str, str]]:
    for cell in cells:
        if _is_cut(cell):
            yield cell.cell.name, cell.why.strip()
        for change in cell.changed:
            yield cell.cell.name, change


def _is_cut(cell: CellResult) -> bool:
    """Whether the table has room for only a part of the reason."""
    return not cell.is_done and cell.why.strip() != short(cell.why)


def state_line(cells: tuple[CellResult, ...]) -> str:
    """`All 19 cells (one per row and seed) are done`, or `12 of 19 cells done, 1 failed, 6 waiting`."""
    counts = {word: sum(cell.state == word for cell in cells) for word in NOT_DONE}
    others = [f"{count} {word}" for word, count in counts.items() if count]
    if not others:
        return f"All {plural(len(cells), 'cell')} (one per row and seed) are done" if len(cells) > 1 else "1 cell, done"
    return ", ".join([f"{sum(cell.is_done for cell in cells)} of {plural(len(cells), 'cell')} done", *others])
