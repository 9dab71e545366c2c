"""Page 1: what a reader needs to decide stands there, and each part of it leads on to where it comes from."""

import re
import shlex
from html import unescape

import pytest
from support.golden import half_done
from support.report_study import ONE_TABLE, bench

from ablate.report.exhibits.main_table import main_table
from ablate.report.findings_text import headline
from ablate.report.front_page import front_page
from ablate.report.write import write_report
from ablate.results.collect import collect
from ablate.results.shipping import shipping_of

RATES = {"rates": {"question": "Which rate?", "grid": {"distill.lr": [1e-3, 3e-4]}}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    study = bench(tmp_path_factory.mktemp("finished"), ablations=RATES)
    study.commit(*study.plan().cells)
    return study


@pytest.fixture(scope="module")
def pages(finished):
    folder = write_report(finished.plan())
    return [(folder / name).read_text() for name in ("report.html", "report.md")]


def page_1(html):
    return html[html.index('<section class="front"') : html.index("</section>")]


def test_page_1_asks_answers_and_leads_to_the_rows(finished, pages):
    html, markdown = pages
    results = collect(finished.plan())
    answer = headline(results, results.ablations[0])
    first = page_1(html)
    assert first.index('<a href="#rates">Which rate?</a>') < unescape(first).index(answer)
    assert markdown.index("[Which rate?](#rates)") < markdown.index("\n## rates")
    targets = re.findall(r'href="#([^"]+)"', first)
    assert all(f'id="{target}"' in html for target in targets)
    (row,) = [target for target in targets if target.startswith("row+")]
    (one,) = shipping_of(results)
    shown = html[html.index(f'<tr id="{row}"') :]
    assert f">{one.cheapest.row.label}" in shown[: shown.index("</tr>")]


def test_the_command_of_page_1_exports_the_row_that_it_names(finished, pages):
    (one,) = shipping_of(collect(finished.plan()))
    command = unescape(re.search(r'<code class="command">(.*?)</code>', pages[0])[1])
    assert shlex.split(command) == ["ablate", "export", f"small:{one.cell.cell.name}", "exported"]
    assert f"\n    {command}\n" in pages[1]


def test_every_fold_opens_to_something(pages):
    folds = re.findall(r"<details[^>]*>\s*<summary>(.*?)</summary>(.*?)</details>", pages[0], re.DOTALL)
    assert len(folds) >= 10
    assert [name for name, inside in folds if not re.sub(r"<[^>]*>", "", inside).strip()] == []
    headings = re.findall(r"^### (.*)$", pages[1], re.MULTILINE)
    assert [name for name, _ in folds if unescape(name) not in "\n".join(headings).replace("\\", "")] == [
        "Recipes",
        "Common settings, models, data and versions",
    ]


def test_failures_stand_at_the_top_with_their_reasons(tmp_path):
    study = half_done(tmp_path)
    front = front_page(collect(study.plan()), None)
    failed, diverged = front.troubles
    assert failed.cells == "learning_rate/lr=0.0003@0"
    assert failed.why.startswith("failed: oom: CUDA out of memory")
    assert diverged == ("learning_rate/lr=0.001@0", "diverged at step 31: loss is nan")
    first = page_1((write_report(study.plan()) / "report.html").read_text())
    assert first.index("5 of 12 cells done, 1 failed, 1 diverged, 5 waiting") < first.index("What we learned")
    assert first.index("CUDA out of memory") < first.index("What we learned")
    assert '<progress max="12" value="5"' in first


def test_a_rehearsal_says_so_before_anything_else(tmp_path):
    study = bench(tmp_path, rehearsal=True, ablations=dict(ONE_TABLE))
    front = front_page(collect(study.plan()), None)
    assert front.alerts[0].startswith("A rehearsal")
    assert front.offers == ()


def test_the_main_table_has_the_scores_of_lm_eval_in_hundredths(finished):
    results = collect(finished.plan())
    (ablation,) = results.ablations
    lines = [line for line in main_table(results, ablation).markdown.splitlines() if line.startswith("| ")][1:]
    for row, line in zip(ablation.rows, lines, strict=True):
        tasks = row.done[0].evaluation["tasks"]
        first, *_ = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[2:-1]]
        shares = [tasks[task]["metrics"][name] for task, name in ablation.columns]
        value, error = (float(number) for number in first.split(" ± "))
        assert (value, error) == pytest.approx((100 * shares[0]["value"], 100 * shares[0]["stderr"]), abs=0.051)
        for share in shares[1:]:
            shown = f"{round(100 * share['value'], 1):.1f}"
            near = f"{100 * share['value'] + 0.04:.1f}", f"{100 * share['value'] - 0.04:.1f}"
            assert shown in line or any(one in line for one in near)


@pytest.mark.parametrize(("seeds", "has_badges"), [([0], False), ([0, 1, 2], True)])
def test_a_verdict_is_a_badge_only_where_seeds_could_tell_it(tmp_path, seeds, has_badges):
    grid = {"distill.lr": [1e-3, 3e-4, 1e-5], "distill.kd_ratio": [0.25, 0.75]}
    study = bench(tmp_path, seeds=seeds, report={"delta": 0.5}, ablations={"one": {"grid": grid}})
    for cell in study.plan().cells:
        study.commit_evaluation(cell)
    results = collect(study.plan())
    html = main_table(results, results.ablations[0]).html
    badges = re.findall(r'<span class="tag">(\w+)</span>', html.replace(">control<", "><"))
    assert bool(badges) is has_badges
    assert set(badges) <= {"better", "worse", "equivalent"}
