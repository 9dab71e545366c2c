"""What several processes read ahead is what one would have read."""

import pytest
from support.report_study import bench

from ablate.results import question_scores, read_ahead
from ablate.results.collect import collect

ABLATIONS = {"one": {"grid": {"distill.lr": [1e-3, 1e-4]}}}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(read_ahead, "LEAST_BYTES", 0)
    monkeypatch.setattr(read_ahead.os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(read_ahead.threading, "active_count", lambda: 1)  # whatever thread an earlier test has left
    study = bench(tmp_path, ablations=ABLATIONS, seeds=[0, 1])
    study.commit(*study.plan().cells)
    return collect(study.plan())


def test_files_that_are_read_ahead_say_what_they_say_when_read_alone(results):
    read_ahead.read_ahead(results)
    paths = {path for cell in results.cells for path in cell.sample_files}
    assert len(paths) == 3 * 9  # tasks; the models of four reference rows and two distilled ones, two seeds
    for path in paths:
        kept, alone = question_scores._read_ahead[path], question_scores.read_kept_scores(path)
        assert kept.by_metric == alone.by_metric
        assert kept.questions is alone.questions


def test_models_that_were_asked_the_same_share_its_questions(results):
    read_ahead.read_ahead(results)
    for task in ("hellaswag", "commonsense_qa"):
        kept = [question_scores.read_question_scores(cell.samples(task), "acc") for cell in results.cells]
        assert len({id(one.questions) for one in kept}) == 1


def test_a_file_that_cannot_be_read_is_left_to_who_needs_it(results):
    path = results.cells[0].samples("hellaswag")
    path.unlink()
    read_ahead.read_ahead(results)
    with pytest.raises(question_scores.NotComparable):
        question_scores.read_question_scores(path, "acc")
