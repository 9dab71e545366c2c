"""The report in LaTeX: report.tex, and of each ablation a table to be put into a paper."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ablate.report.findings_text import answers
from ablate.report.markup import tex
from ablate.report.metric_names import metric_name
from ablate.report.row_texts import (
    difference_interval,
    difference_text,
    gap_text,
    note_text,
    places_of,
    score_text,
    seeds_text,
)
from ablate.report.words import say
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.row_records import RowRecord, row_records

ENDS_ROW = r" \\"
PREAMBLE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs}
\usepackage{graphicx}
"""


class _Column(NamedTuple):
    head: str
    cells: tuple[str, ...]
    is_right: bool = True


def latex_files(studies: Sequence[Results]) -> dict[str, bytes]:
    """-> report.tex, which compiles where it lies, and tables/<ablation>.tex, which needs booktabs and graphicx."""
    tables = {f"tables/{ablation.name}.tex": _table(results, ablation).encode()
              for results in studies for ablation in results.ablations}  # fmt: skip
    return {"report.tex": "\n".join(_document(studies)).encode(), **tables}


def _document(studies: Sequence[Results]) -> Iterator[str]:
    titles = dict.fromkeys(results.study.title or results.study.name for results in studies)
    yield f"{PREAMBLE}\\title{{{tex(', '.join(titles))}}}\n\\date{{}}\n\\begin{{document}}\n\\maketitle"
    for results in studies:
        for ablation in results.ablations:
            yield f"\n\\section{{{tex(ablation.title)}}}"
            if ablation.spec.question:
                yield f"\\emph{{{tex(ablation.spec.question)}}}\n"
            yield " ".join(tex(sentence) for sentence in answers(results, ablation))
            yield f"\\input{{tables/{ablation.name}.tex}}"
    yield "\\end{document}\n"


def _table(results: Results, ablation: AblationResult) -> str:
    """-> the metric that decides with differences and intervals, then the scores of the others."""
    records = {metric: list(row_records(results, ablation, [metric])) for metric in ablation.columns}
    rows = next(iter(records.values()), None) or list(row_records(results, ablation, []))
    columns = [_Column("Model", tuple(_label(record) for record in rows), is_right=False), *_first_column(rows)]
    num = len(columns)
    for metric in ablation.columns:
        columns += _metric_columns(records[metric], metric == ablation.primary)
    notes = _Column("", tuple(note_text(record) for record in rows), is_right=False)
    columns += [notes] if any(notes.cells) else []
    return "\n".join(_lines(ablation, columns, list(_heads(ablation, records)), num))


def _label(record: RowRecord) -> str:
    return say("terminal.control", row=record.label) if record.is_control else record.label


def _first_column(rows: Sequence[RowRecord]) -> list[_Column]:
    return [_Column("Seeds", tuple(map(seeds_text, rows)))] if any(map(seeds_text, rows)) else []


def _metric_columns(records: Sequence[RowRecord], is_primary: bool) -> list[_Column]:
    places = places_of(records)
    score = _Column("Score", tuple(score_text(record, places) for record in records))
    if not is_primary:
        return [score]
    more = (
        _Column("Difference", tuple(difference_text(record, places) for record in records)),
        _Column("95 % interval", tuple(difference_interval(record, places) for record in records)),
        _Column("Gap recovered", tuple(gap_text(record) for record in records)),
    )
    return [score, *(column for column in more if any(column.cells))]


def _heads(ablation: AblationResult, records: dict[Metric, list[RowRecord]]) -> Iterator[tuple[str, int]]:
    """-> each metric's name, and how many columns it stands over."""
    for metric in ablation.columns:
        name, is_primary = metric_name(metric, ablation.columns), metric == ablation.primary
        text = say("terminal.decides", metric=name) if is_primary else name
        yield text, len(_metric_columns(records[metric], is_primary))


def _lines(
    ablation: AblationResult, columns: Sequence[_Column], heads: Sequence[tuple[str, int]], num_before: int
) -> Iterator[str]:
    yield "\\begin{table}[htbp]\n\\centering\n\\small"
    yield f"\\caption{{{tex(ablation.title)}}}\n\\label{{tab:{ablation.name}}}"
    yield "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%"
    yield f"\\begin{{tabular}}{{{''.join('r' if column.is_right else 'l' for column in columns)}}}\n\\toprule"
    yield from _head_rows(columns, heads, num_before)
    yield "\\midrule"
    for cells in zip(*(column.cells for column in columns), strict=True):
        yield " & ".join(map(cell, cells)) + ENDS_ROW
    yield "\\bottomrule\n\\end{tabular}}"
    yield f"\\par\\smallskip{{\\footnotesize {tex(say('terminal.latex_note'))}}}\n\\end{{table}}\n"


def _head_rows(columns: Sequence[_Column], heads: Sequence[tuple[str, int]], num_before: int) -> Iterator[str]:
    num_after = len(columns) - num_before - sum(num for _, num in heads)
    spanning = [f"\\multicolumn{{{num}}}{{c}}{{{tex(name)}}}" for name, num in heads]
    if spanning:
        yield " & ".join([*[""] * num_before, *spanning, *[""] * num_after]) + ENDS_ROW
        yield " ".join(_rules(heads, num_before))
    yield " & ".join(cell(column.head) for column in columns) + ENDS_ROW


def _rules(heads: Sequence[tuple[str, int]], num_before: int) -> Iterator[str]:
    begin = num_before + 1
    for _, num in heads:
        yield f"\\cmidrule(lr){{{begin}-{begin + num - 1}}}"
        begin += num


def cell(text: str) -> str:
    """-> text in a row; a row that began with a bracket or a star would be an argument of the line's end before it."""
    shown = tex(text)
    return f"{{}}{shown}" if shown.startswith(("[", "*")) else shown
