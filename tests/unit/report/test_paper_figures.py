"""Figures for papers: within a column or a page, in fonts that publishers take, the same bytes each time."""

import re

import pytest
from support.report_study import ONE_TABLE, bench

from ablate.core.errors import AblateError
from ablate.report.exhibits.base import EXHIBITS
from ablate.report.exhibits.front_figure import front_figure
from ablate.report.styles import drawn_for, style_named
from ablate.report.write import write_report
from ablate.results.collect import collect


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    table = {"title": "100 % & more of $x_1$ {#2}", "grid": {"distill.lr": [1e-3, 1e-6, 3e-4]}}
    study = bench(tmp_path_factory.mktemp("paper"), ablations={"rates": table})
    study.commit(*study.plan().cells)
    results = collect(study.plan())

    def drawn():
        with drawn_for("paper"):
            return [front_figure(results), EXHIBITS["answer"](results, results.ablations[0])]

    return drawn


def paper(pieces):
    return {path: data for piece in pieces for path, data in piece.files.items() if path.startswith("paper/")}


def test_each_is_as_wide_as_a_column_or_a_page_and_has_three_forms(pieces):
    files = paper(pieces())
    names = {path.rpartition(".")[0] for path in files}
    assert names == {"paper/all-ablations", "paper/rates-answer-0", "paper/rates-answer-1"}
    for name in names:
        points = 72 * (6.75 if name.endswith("all-ablations") else 3.25)
        box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ", files[f"{name}.pdf"])
        assert float(box[1]) == pytest.approx(points, abs=0.1)
        assert re.search(r'viewBox="0 0 ([\d.]+) ', files[f"{name}.svg"].decode())[1] == f"{points:g}"
        assert f"{{\\pgfqpoint{{{points / 72:f}in}}" in files[f"{name}.pgf"].decode()


def test_a_pdf_holds_truetype_outlines_and_no_date(pieces):
    for path, data in paper(pieces()).items():
        if path.endswith(".pdf"):
            assert b"/Type3" not in data
            assert b"/Subtype /Type0" in data or b"/CIDFontType2" in data
            assert b"CreationDate" not in data


def test_they_are_the_same_bytes_when_drawn_again(pieces):
    assert paper(pieces()) == paper(pieces())


def test_what_latex_would_take_for_markup_is_escaped_in_a_pgf(pieces):
    text = paper(pieces())["paper/all-ablations.pgf"].decode()
    assert r"100 \% \& more of \$x\_1\$ \{\#2\}" in text
    said = "".join(re.findall(r"\\pgftext\[[^\]]*\]\{(.*)\}%?$", text, re.M))
    assert said.isascii()
    for group in (text, said):
        plain = re.sub(r"\\[{}]", "", group)
        assert plain.count("{") == plain.count("}")


def test_nothing_of_it_is_drawn_for_a_screen(tmp_path):
    study = bench(tmp_path, ablations=ONE_TABLE)
    study.commit(*study.plan().cells)
    assert not paper([front_figure(collect(study.plan()))])


def test_a_style_that_there_is_not_is_refused_with_those_that_there_are():
    assert style_named("paper") == "paper"
    with pytest.raises(AblateError, match="Possible: screen, paper"):
        style_named("papper")


@pytest.mark.slow
def test_papers_figures_stay_until_a_screen_alone_is_asked_for(tmp_path):
    study = bench(tmp_path, ablations=ONE_TABLE)
    study.commit(*study.plan().cells)
    folder = write_report(study.plan())
    assert not (folder / "paper").exists()
    write_report(study.plan(), style="paper")
    kept = {path.name: path.read_bytes() for path in (folder / "paper").iterdir()}
    assert "all-ablations.pgf" in kept
    assert write_report(study.plan()) == folder
    assert {path.name: path.read_bytes() for path in (folder / "paper").iterdir()} == kept
    write_report(study.plan(), style="screen")
    assert not any((folder / "paper").glob("*"))
