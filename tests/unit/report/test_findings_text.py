"""What a report says in words follows from its verdicts, and from nothing else."""

import csv
import io
import json
import re

import pytest
from support import report_study
from support.golden import half_done
from support.report_study import bench

from ablate.report.answer_facts import facts_of
from ablate.report.control_text import control_answer
from ablate.report.exhibits.differences_table import differences_table
from ablate.report.findings_text import answers, headline
from ablate.report.markup import tex
from ablate.report.metric_names import metric_name
from ablate.report.write import write_report
from ablate.results.collect import collect
from ablate.results.verdicts import findings_of

RATES = {"one": {"title": "Rates", "grid": {"distill.lr": [1e-3, 3e-4, 1e-5]}}}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    study = bench(tmp_path_factory.mktemp("seeds"), seeds=[0, 1, 2, 3, 4], ablations=RATES)
    study.commit(*study.plan().cells)
    return study


@pytest.fixture(scope="module")
def one_seed(tmp_path_factory):
    study = bench(tmp_path_factory.mktemp("one"), ablations=RATES)
    study.commit(*study.plan().cells)
    return study


def answers_and_findings(study):
    results = collect(study.plan())
    ablation = results.ablations[0]
    return answers(results, ablation), findings_of(results, ablation), ablation


def test_the_rows_that_are_named_as_better_or_worse_are_those_of_that_verdict(seeds):
    results = collect(seeds.plan())
    ablation, facts = results.ablations[0], facts_of(results, results.ablations[0])
    for metric in ablation.columns:
        (sentence,) = control_answer(facts, metric, "llama")
        text = sentence.replace(metric_name(metric, ablation.columns), "")
        for side, verdict in (("ahead", "better"), ("behind", "worse")):
            text = re.sub(rf" is [\d.]+ points {side} of .*| is [\d.]+ points {side} .*", f" does {verdict}", text)
        read = {verdict: set() for verdict in ("better", "worse")}
        for part, verdict in re.findall(r"(.*?) (?:does |do |)(better|worse)\b", text):
            read[verdict] |= {float(rate) for rate in re.findall(r"\d[\d.e-]*", part)}
        for verdict, rates in read.items():
            verdicts = [one for one in facts.findings if one.metric == metric and one.verdict == verdict]
            assert rates == {one.row.row.values["distill.lr"] for one in verdicts}
    assert "worse" in {one.verdict for one in facts.findings}


def test_what_is_told_has_an_interval_that_tells_it_too(seeds):
    _, findings, _ = answers_and_findings(seeds)
    news = [one for one in findings.all if one.verdict in ("better", "worse", "suggestive")]
    assert news
    assert all(one.low > 0 or one.high < 0 for one in news)


@pytest.mark.slow
def test_where_one_row_has_one_seed_yet_only_that_row_is_said_to(tmp_path):
    study = bench(tmp_path, seeds=[0, 1, 2], ablations=RATES, report={"delta": 0.2})
    cells = study.plan().cells
    study.commit(*(cell for cell in cells if cell.row.name != "lr=1e-05" or cell.seed == 0))
    sentences, findings, _ = answers_and_findings(study)
    assert findings.has_seed_noise
    assert [row.row.name for row in findings.of_questions_only] == ["lr=1e-05"]
    assert sentences[-1] == "13 of 15 cells are done, so this may change."
    text = (write_report(study.plan()) / "report.md").read_text()
    assert text.count("questions and training seeds (of KD, lr=1e-05: questions only)") == 2  # foot and caption
    assert "Bold: better than the control" in text
    assert "Equivalent: the 90 %" in text
    assert "Nothing is bold" not in text


def test_one_seed_settles_nothing(one_seed):
    _, findings, _ = answers_and_findings(one_seed)
    assert {one.verdict for one in findings.all} <= {"suggestive", "inconclusive"}


def test_the_answer_is_by_the_primary_metric(tmp_path):
    study = bench(tmp_path, seeds=[0, 1, 2], ablations=RATES, report={"primary": "commonsense_qa/acc"})
    study.commit(*study.plan().cells)
    sentences, _, _ = answers_and_findings(study)
    assert "CommonsenseQA" in sentences[0]


def test_what_cannot_be_compared_is_counted_and_has_no_verdict_else(tmp_path):
    study = bench(tmp_path, ablations=RATES)
    *others, last = study.plan().cells
    study.commit(*others)
    study.commit_training(last)
    study.commit_evaluation(last, batch_size=8)
    sentences, findings, ablation = answers_and_findings(study)
    refused = [one for one in findings.all if one.verdict == "not comparable"]
    assert len(refused) == len(ablation.columns)
    assert "Distillation with a learning rate of 1e-05 cannot be compared: other batch size." in sentences
    assert findings.size == 2 * len(ablation.columns)


def test_failed_and_diverged_rows_are_no_comparison(tmp_path):
    _, findings, ablation = answers_and_findings(half_done(tmp_path))
    assert {one.row.row.name for one in findings.all} == {"lr=1e-05"}
    assert findings.size == len(ablation.columns)


def test_where_nothing_is_done_page_1_says_that_there_is_no_answer_yet(tmp_path):
    results = collect(bench(tmp_path).plan())
    assert answers(results, results.ablations[0]) == []
    assert headline(results, results.ablations[0]) == "No answer yet: 0 of 7 cells are done."


# where they are


@pytest.mark.slow
def test_the_page_begins_with_the_answers_and_results_json_holds_the_verdicts(seeds):
    folder = write_report(seeds.plan())
    sentences, findings, _ = answers_and_findings(seeds)
    text = (folder / "report.html").read_text()
    assert text.index(sentences[0]) < text.index('<section id="one"') < text.rindex(sentences[0])
    differences = json.loads((folder / "results.json").read_text())["differences"]
    verdicts = {
        (difference["row"], difference["metric"]): difference["verdict"]
        for difference in differences
        if "verdict" in difference
    }
    assert verdicts == {(one.row.row.name, str(one.metric)): one.verdict for one in findings.all}
    assert (folder / "report.md").read_text().count("**0.") == list(verdicts.values()).count("better")


def test_every_comparison_is_a_line_of_the_detail_table(seeds):
    results = collect(seeds.plan())
    table = differences_table(results, results.ablations[0])
    rows = list(csv.DictReader(io.StringIO(table.files["tables/one-differences.csv"].decode())))
    findings = findings_of(results, results.ablations[0]).all
    assert len(rows) == len(findings) == table.files["tables/one-differences.tex"].decode().count(r" \\") - 1
    assert sorted(row["Verdict"] for row in rows) == sorted(one.verdict for one in findings)


def test_latex_shows_text_as_it_is():
    assert tex(r"50 % of $x_1$ & \y") == r"50 \% of \$x\_1\$ \& \textbackslash{}y"


@pytest.mark.slow
def test_one_question_has_a_report_without_an_interval(tmp_path, monkeypatch):
    monkeypatch.setattr(report_study, "N", dict.fromkeys(report_study.N, 1))
    study = bench(tmp_path, ablations=RATES)
    study.commit(*study.plan().cells)
    assert (write_report(study.plan()) / "figures/one-differences.png").is_file()
    assert "NaN to NaN" in (tmp_path / "reports/small/tables/one-differences.csv").read_text()
