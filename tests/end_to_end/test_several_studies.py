"""Several studies in one page: each as its own report tells it, nothing mixed up."""

import re
from collections import Counter

import pytest
from support.report_study import Bench, bench
from typer.testing import CliRunner

from ablate.cli.app import app
from ablate.core.errors import AblateError
from ablate.report.findings_text import answers
from ablate.report.write import report_name, write_report
from ablate.results.collect import collect

RATES = {"learning_rate": {"title": "Rates", "grid": {"distill.lr": [1e-3, 1e-5]}}}
OTHER = {"learning_rate": {"title": "Other rates", "grid": {"distill.lr": [1e-3, 3e-4]}}}


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[Bench, Bench]:
    """Two studies under one root whose tables have the same name and share most stages."""
    root = tmp_path_factory.mktemp("two")
    first, second = bench(root, ablations=RATES), bench(root, name="other", title="Another study", ablations=OTHER)
    for study in (first, second):
        for cell in study.plan().cells:
            if cell.trained and not study.store.done(cell.trained):
                study.commit_training(cell)
            if not study.store.done(cell.evaluate):
                study.commit_evaluation(cell)
    return first, second


@pytest.fixture(scope="module")
def folder(two):
    return write_report(two[0].plan(), two[1].plan())


def test_both_studies_stand_in_the_page_with_their_own_sentences(two, folder):
    assert folder.name == "small+other"
    page = (folder / "report.html").read_text()
    titles = [page.index(f">{title}</h2>") for title in ("A small study", "Another study")]
    assert page.index("<h1>A small study and Another study</h1>") < titles[0] < titles[1]
    for study in two:
        results = collect(study.plan())
        for ablation in results.ablations:
            sentences = answers(results, ablation)
            assert sentences
            assert all(sentence in page for sentence in sentences)
            assert all(sentence in (folder / "report.md").read_text() for sentence in sentences)


def test_what_they_share_is_counted(folder):
    # the control and its three references asked, two fine-tunings, one distillation trained and asked
    assert "2 studies; 8 stages of work serve more than one of them." in (folder / "report.html").read_text()


def test_tables_and_figures_of_one_name_are_kept_apart(two, folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file()}
    assert {"tables/small+learning_rate.csv", "tables/other+learning_rate.csv", "figures/other+stages.png"} <= names
    for study in two:
        own = write_report(study.plan()) / "tables" / "learning_rate.csv"
        assert (folder / f"tables/{study.study.name}+learning_rate.csv").read_bytes() == own.read_bytes()
    page = (folder / "report.html").read_text()
    assert [name for name, count in Counter(re.findall(r'\bid="([^"]+)"', page)).items() if count > 1] == []
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r'\bid="([^"]+)"', page))


def test_the_command_writes_a_report_of_each_and_of_all_and_leaves_what_is_current(two, folder, monkeypatch):
    plans = {study.study.name: study.plan() for study in two}

    class Project:
        def __init__(self, name):
            self.name = name

        def plan(self, *, is_online):
            return plans[self.name]

    monkeypatch.setattr("ablate.cli.result_verbs.any_project", lambda study, *_, **__: Project(str(study)))
    before = (folder / "report.html").stat().st_mtime_ns
    written = CliRunner().invoke(app, ["report", "small", "other"])
    root = folder.parent
    assert written.output.splitlines() == [f"wrote {root / name}" for name in ("small", "other", "small+other")]
    assert (folder / "report.html").stat().st_mtime_ns == before
    refused = CliRunner().invoke(app, ["report", "small", "other", "--compare", "x"])
    assert refused.exit_code == 2
    assert "name one study" in refused.output


def test_two_studies_of_one_name_are_refused_and_the_same_one_twice_is_one(two):
    first, _ = two
    namesake = Bench(first.root, first.study.model_copy(update={"title": "Not that one"}))
    with pytest.raises(AblateError, match="two studies have the name 'small'"):
        write_report(first.plan(), namesake.plan())
    assert write_report(first.plan(), first.plan()).name == "small"


def test_a_report_of_many_studies_has_a_name_that_a_disk_takes():
    names = [f"{letter * 60}" for letter in "abcdef"]
    assert re.fullmatch(r"a{60}\+5-[0-9a-f]{8}", report_name(names))
    assert report_name(names[:2]) == "+".join(names[:2])


def test_no_table_takes_the_name_of_another(tmp_path):
    grid = {"grid": {"distill.lr": [1e-3, 3e-4]}}
    study = bench(tmp_path, ablations={"lr": grid, "lr-best": grid})
    study.commit(*study.plan().cells[:6])
    with pytest.raises(AblateError, match=r"two of the report's files would be tables/lr-best.csv"):
        write_report(study.plan())
