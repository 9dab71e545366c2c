"""The page in a real browser: axe-core finds nothing that keeps a reader out, and no network is asked for anything."""

from html import escape

import numpy as np
import pytest
from support.browser import CHROME, DARK, LIGHT, axe_findings, dumped, requests, seen, with_scripts
from support.report_study import bench
from support.written_answers import commit_written

from ablate.report.exhibits.loss_curves import curves_of
from ablate.report.markup import page_asset
from ablate.report.write import write_report
from ablate.results.collect import collect

pytestmark = pytest.mark.skipif(CHROME is None, reason="wants a Chromium")


USED = """
const read = column => [...document.querySelectorAll("section table")[0].tBodies].map(
  body => [...body.rows].filter(row => !row.matches(".group")).map(row => row.cells[column].innerText.trim()));
const button = document.querySelectorAll("section table thead button")[1];
const orders = [read(1)];
for (let i = 0; i < 3; i++) { button.click(); orders.push(read(1)); }
const svg = document.querySelector("svg[data-x]");
for (let i = 0; i < 20; i++) svg.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
const tip = [...svg.parentElement.querySelector(".tip").children].map(line => line.textContent);
document.body.textContent = "SEEN" + JSON.stringify({orders: orders, tip: tip}) + "END";
"""


GRID = {"distill.lr": [1e-3, 1e-5], "distill.loss": ["forward_kl", "jsd"]}
HELD_OUT = {"class_loss": 1.5, "forward_kl": 0.25, "reverse_kl": 0.5, "tokens": 640}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """With every sort of figure and table in its page."""
    ablations = {"one": {"title": "Two settings", "grid": GRID}}
    return bench(tmp_path_factory.mktemp("page"), ablations=ablations)


@pytest.fixture(scope="module")
def page(study):
    plan = study.plan()
    for cell in plan.cells[:-1]:
        if cell.trained and cell.row.model == "distill":
            commit_written(study, cell, share=0.5, held_out=HELD_OUT)
        elif cell.trained:
            study.commit_training(cell, held_out=HELD_OUT)
        study.commit_evaluation(cell, has_finer=True)
    study.fail(plan.cells[-1].evaluate, "error", "a reason")
    return write_report(plan) / "report.html"


@pytest.mark.parametrize(
    ("scheme", "paper"), [(LIGHT, "rgb(255, 255, 255)"), (DARK, "rgb(20, 24, 29)")], ids=["light", "dark"]
)
def test_axe_finds_no_violation(page, scheme, paper, tmp_path):
    assert axe_findings(page, tmp_path, scheme) == {"paper": paper, "said": []}


def test_the_pages_own_script_runs_and_no_other(page, tmp_path):
    opened = tmp_path / "page.html"
    opened.write_text(page.read_text().replace("</body>", "<script>document.title = 'another'</script></body>"))
    document = dumped(opened, tmp_path)
    assert "<button type=" in document
    assert "<title>another" not in document


def test_a_table_is_sorted_by_a_click_and_a_curve_tells_its_values(study, page, tmp_path):
    used = seen(with_scripts(page, tmp_path, USED), tmp_path)
    before, up, down, again = used["orders"]
    scores = [[float(cell.split()[0]) for cell in group if not cell.startswith("failed")] for group in up]
    assert scores == [sorted(group) for group in scores]
    assert [len(group) for group in scores] == [4, 3]
    assert up[1][-1].startswith("failed")
    assert down == [up[0][::-1], [*up[1][-2::-1], up[1][-1]]] != up
    assert before == again != up
    results = collect(study.plan())
    ablation = results.ablations[0]
    curves = [curve for curve in curves_of(ablation, results.study.pairs) if not curve.is_reference]
    where, *lines = used["tip"]
    name, thousands = where.rsplit(" ", 1)
    assert name == "tokens in the loss (thousands)"
    values = dict(line.rsplit(" ", 1) for line in lines)
    for curve in curves:  # drawn to a tenth of a point, of 190 from the lowest to the highest
        expected = np.interp(1000 * float(thousands), curve.positions(True), curve.smooth["kd_loss"])
        assert float(values[curve.label]) == pytest.approx(expected, rel=0.02)


WORDS = {
    "share": ["> 99 %", "50 %", "< 1 %", "7 %"],
    "time": ["3 h 05 min", "42 s", "12 min", "91 s"],
    "model": ["KD, lr=0.001", "KD, lr=1e-05", "KD, lr=0.0003", "KD, lr=0.01"],
    "began": ["2026-11-27T09:00:00+00:00", "2026-11-26T10:00:00+00:00", "2026-11-27T08:59:59+00:00", ""],
    "loss": ["0.5", "NaN", "1,200", "\N{MINUS SIGN}3.1 ± 0.2"],
}
SORTED = {
    "share": ["< 1 %", "7 %", "50 %", "> 99 %"],
    "time": ["42 s", "91 s", "12 min", "3 h 05 min"],
    "model": ["KD, lr=1e-05", "KD, lr=0.0003", "KD, lr=0.001", "KD, lr=0.01"],
    "began": ["2026-11-26T10:00:00+00:00", "2026-11-27T08:59:59+00:00", "2026-11-27T09:00:00+00:00", ""],
    "loss": ["\N{MINUS SIGN}3.1 ± 0.2", "0.5", "1,200", "NaN"],
}
SORT = """
const found = {};
[...document.querySelectorAll("thead button")].forEach((button, column) => {
  const name = button.innerText.trim();
  button.click();
  found[name] = [...document.querySelectorAll("tbody tr")].map(row => row.cells[column].innerText);
});
document.body.textContent = "SEEN" + JSON.stringify(found) + "END";
"""


def test_columns_are_sorted_by_what_their_words_mean(tmp_path):
    head = "".join(f"<th>{name}</th>" for name in WORDS)
    rows = zip(*WORDS.values(), strict=True)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    path = tmp_path / "table.html"
    path.write_text(
        f"<meta charset=utf-8><body><main><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></main>"
        f"<script>{page_asset('page.js')}</script><script>{SORT}</script></body>"
    )
    assert seen(path, tmp_path) == SORTED


def test_the_page_asks_nothing_of_a_network(page, tmp_path):
    asking = tmp_path / "asking.html"
    asking.write_text('<img src="http://127.0.0.1:9/seen">')
    assert requests(asking, tmp_path) == {"http://127.0.0.1:9/seen"}
    assert {url for url in requests(page, tmp_path) if not url.startswith("file:")} == set()
