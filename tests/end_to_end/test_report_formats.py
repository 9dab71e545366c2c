"""A report in other forms than a page: what is asked for is there, and says the same."""

import ast
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import exhibited
from support.report_study import ONE_TABLE, bench

from ablate.cli.row_choice import Wanted, choose
from ablate.core.errors import AblateError
from ablate.report.formats import formats_named
from ablate.report.latex import cell, latex_files
from ablate.report.markup import tex
from ablate.report.notebook import notebook
from ablate.report.results_json import json_bytes, results_record
from ablate.report.spreadsheet import results_csv
from ablate.report.write import write_report
from ablate.results.collect import Results, collect


def test_a_report_is_written_in_the_formats_that_are_asked_for_until_others_are(tmp_path):
    study = bench(tmp_path, ablations=ONE_TABLE)

    def pages(**asked: Any) -> set[str]:
        return {path.name for path in write_report(study.plan(), **asked).glob("report.*")}

    assert pages() == {"report.html", "report.md"}
    assert pages(formats=("md",)) == pages() == {"report.md"}  # a run later writes what was asked for
    assert pages(formats=("html", "md")) == {"report.html", "report.md"}


def test_an_unknown_format_names_the_possible_ones():
    with pytest.raises(AblateError, match=r"has no format 'htm'\. Did you mean 'html'\? Possible: "):
        formats_named("md,htm")
    assert formats_named("md, html,md") == ("html", "md")


def in_latex(results: Results) -> dict[str, str]:
    return {path: data.decode() for path, data in latex_files([results]).items()}


def is_closed(text: str) -> bool:
    """Whether braces and environments close in their order."""
    text, open_ones = re.sub(r"\\[{}%&$#_\\]", "", text), []
    for match in re.finditer(r"\\(begin|end)\{(\w+)\}|[{}]", text):
        if match[0] == "{" or match[1] == "begin":
            open_ones.append(match[2] or "{")
        elif not open_ones or open_ones.pop() != (match[2] or "{"):
            return False
    return not open_ones


def num_columns(line: str) -> int:
    spans = [int(span) for span in re.findall(r"\\multicolumn\{(\d+)\}", line)]
    return len(re.findall(r"(?<!\\)&", line)) + 1 + sum(spans) - len(spans)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory) -> dict[str, Results]:
    root = tmp_path_factory.mktemp("studies")
    return {name: results_of(root / name) for name, results_of in exhibited.STUDIES.items()}


@pytest.mark.parametrize("name", exhibited.STUDIES)
def test_latex_closes_what_it_opens_and_its_columns_align(made_up, name):
    files = in_latex(made_up[name])
    assert all(map(is_closed, files.values()))
    for path in files.keys() - {"report.tex"}:
        (columns,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", files[path])
        rows = [line for line in files[path].splitlines() if line.endswith(r"\\")]
        assert len(rows) > 2
        assert {num_columns(row) for row in rows} == {len(columns)}
        assert f"\\input{{{path}}}" in files["report.tex"]


SPECIAL = re.compile(
    r"\\[&%$#_{}]|\\text(backslash|asciitilde|asciicircum|less|greater|bar|asciigrave)\{\}|\\texttt\{U\+[0-9A-F]+\}"
    r"|\\dots\{\}|\$(-|\\pm)\$|-\{\}-"
)


@given(st.text())
def test_any_text_is_plain_text_in_latex(text):
    assert not re.findall(r"[&%$#_{}~^\\<>|`]|--", SPECIAL.sub("", tex(text)))
    assert tex(text) == tex(" ".join(text.split()))


def number(field: str) -> float:
    """-> the first of a cell; NaN of an empty one."""
    numbers = re.findall(r"[-+]?\d+\.\d+", field.replace("$-$", "-"))
    return float(numbers[0]) if numbers else math.nan


def test_latex_has_the_tables_own_numbers_and_the_deciding_metric_first(made_up):
    results = made_up["finished"]
    text = in_latex(results)["tables/rates.tex"]
    for record in choose(results, Wanted(ablations=("rates",))).printed():
        (line,) = (line for line in text.splitlines() if line.startswith(tex(record.label)))
        score, *more = (number(field) for field in line.split(" & ")[2:6])
        assert score == pytest.approx(record.score, abs=6e-4)
        if record.difference is not None:
            assert more[:2] == pytest.approx([record.difference, record.low], abs=6e-4)
    head = text.split(r"\toprule")[1]
    assert head.index("TruthfulQA mc2 (decides)") < head.index("HellaSwag")


def test_a_row_in_latex_that_begins_like_an_argument_is_none():
    assert cell("[1] *") == "{}[1] *"
    assert cell("*") == "{}*"


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """-> what a notebook of some results says, once it lies beside their files and is run there."""

    def run(*studies: Results) -> tuple[list[dict[str, Any]], list[Any]]:
        for results in studies:
            folder = tmp_path / "reports" / results.study.name
            folder.mkdir(parents=True)
            (folder / "results.csv").write_text(results_csv(results))
            (folder / "results.json").write_bytes(json_bytes(results_record(results)))
        shown = studies if len(studies) == 1 else [results.among_others() for results in studies]
        read = json.loads(notebook(shown, ["figures/rates-losses.png", "figures/rates-2-losses.png"]))
        place = folder if len(studies) == 1 else tmp_path / "reports" / "all"
        place.mkdir(exist_ok=True)
        monkeypatch.chdir(place)
        names: dict[str, Any] = {}
        values = []
        for source in ("".join(one["source"]) for one in read["cells"] if one["cell_type"] == "code"):
            *before, last = ast.parse(source).body
            exec(compile(ast.Module(before, []), "cell", "exec"), names)
            if isinstance(last, ast.Expr):
                values.append(eval(ast.unparse(last), names))
            else:
                exec(ast.unparse(last), names)
        return read["cells"], values

    return run


def two_seeds(root: Path, name: str) -> Results:
    study = bench(root, name=name, seeds=[0, 1], ablations={"rates": {"grid": {"distill.lr": [1e-3, 3e-4]}}})
    for one in study.plan().cells:
        if not study.store.done(one.evaluate):
            study.commit_evaluation(one)
    return collect(study.plan())


@pytest.mark.parametrize("name", ["hostile", "half done", "never begun"])
def test_a_notebook_runs_where_it_lies_at_any_time(made_up, in_folder, name):
    results = made_up[name]
    cells, values = in_folder(results)
    assert len({one["id"] for one in cells}) == len(cells)
    assert sum("computed here" in value.columns for value in values) == len(results.ablations)


def test_a_notebook_finds_the_reports_differences_in_the_scores(tmp_path, in_folder):
    results = two_seeds(tmp_path / "root", "one")
    cells, values = in_folder(results)
    (table,) = (value for value in values if "computed here" in value.columns)
    assert table["computed here"].to_list() == pytest.approx(table["in the report"].to_list())
    assert len(table) == 5
    assert "![figures/rates-losses.png](figures/rates-losses.png)" in [
        "".join(one["source"]).split("\n")[0] for one in cells
    ]


def test_a_notebook_of_several_studies_reads_each_ones_own_numbers(tmp_path, in_folder):
    _, values = in_folder(*(two_seeds(tmp_path / "root", name) for name in ("one", "two")))
    assert [len(value) for value in values if "computed here" in value.columns] == [5, 5]
