"""Training rows as one HTML page that needs nothing else: what counts in the loss is marked."""

from collections.abc import Iterator
from html import escape

from ablate.cli.console import printable
from ablate.cli.data_view import ShownRows, headlines, sample_groups, sample_title

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --faint: #595959; --line: #ccc; --mark: #cdeccf; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #eee; --paper: #161616; --faint: #a8a8a8; --line: #444; --mark: #1d4d24; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; color: var(--faint); border: 1px solid var(--line);
  border-radius: 4px; padding: .6rem; font-size: .85rem; }
mark { background: var(--mark); color: var(--ink); border-bottom: 2px solid currentColor; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .1rem .6rem; text-align: right; font-weight: normal; }
td.bar { width: 20rem; text-align: left; }
td.bar span { display: block; height: .8rem; background: var(--faint); }
"""


def data_page(study: str, shown: list[ShownRows]) -> str:
    """-> the page; every text of the data is escaped."""
    body = "\n".join(part for rows in shown for part in _section(rows))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Training rows of {escape(study)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>Training rows of {escape(study)}</h1>\n<p><mark>What is marked so</mark> counts in the loss.</p>\n"
        f"{body}\n</main>\n</body>\n</html>\n"
    )


def _section(rows: ShownRows) -> Iterator[str]:
    title, *lines = headlines(rows)
    yield f"<section>\n<h2>{escape(title)}</h2>"
    yield "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"
    yield _lengths(rows)
    for name, samples in sample_groups(rows):
        for one in samples:
            pieces = (_piece(piece.text, piece.counts) for piece in one.pieces)
            # a line break at the beginning, which HTML drops, so that one of the text's stays
            yield f"<h3>{escape(f'{name} {sample_title(one)}')}</h3>\n<pre>\n{''.join(pieces)}</pre>"
    yield "</section>"


def _piece(text: str, counts: bool) -> str:
    return f"<mark>{escape(printable(text))}</mark>" if counts else escape(printable(text))


def _lengths(rows: ShownRows) -> str:
    most = max((part.rows for part in rows.lengths), default=1)
    lines = "".join(
        f'<tr><th scope="row">{part.shortest:,} to {part.longest:,}</th><td>{part.rows:,}</td>'
        f'<td class="bar"><span style="width: {100 * part.rows / most:.1f}%"></span></td></tr>\n'
        for part in rows.lengths
    )
    head = '<tr><th scope="col">tokens</th><th scope="col">rows</th><td></td></tr>'
    return f"<table>\n<caption>Lengths of the training rows</caption>\n{head}\n{lines}</table>"
