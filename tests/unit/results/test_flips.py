import math

import pytest
from support.report_study import bench

from ablate.results.choice_answers import read_questions
from ablate.results.collect import collect
from ablate.results.flips import FlipsRefused, TaskFlips, flips_of
from ablate.results.subjects import subjects_of
from ablate.store.job import read_metrics


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return committed(tmp_path_factory.mktemp("study"), has_choices=True)


def committed(root, edit=None, **how):
    """-> a finished study of two learning rates."""
    study = bench(root, ablations={"rates": {"grid": {"distill.lr": [1e-3, 3e-4]}}})
    for cell in study.plan().cells:
        study.commit_evaluation(cell, edit=edit, **how)
    return collect(study.plan())


def known(results):
    return [one for one in flips_of(results, results.ablations[0]) if isinstance(one, TaskFlips)]


def records_of(one):
    paths = (cell.samples(one.metric.task) for cell in one.cells)
    return [{record["doc_id"]: record for record in read_metrics(path)} for path in paths]


def by_hand(one):
    """-> ids of won and of lost questions, each in the order in which they would be shown."""
    plus, minus = (
        {record["doc_id"]: record for record in read_metrics(cell.samples(one.metric.task))} for cell in one.cells
    )
    won, lost = [], []
    for doc_id, record in plus.items():
        right = record["target"]
        scores = record["scores"][one.metric.name], minus[doc_id]["scores"][one.metric.name]
        change = record["loglikelihoods"][right] - minus[doc_id]["loglikelihoods"][right]
        if scores == (1, 0):
            won.append((-change, doc_id))
        if scores == (0, 1):
            lost.append((change, doc_id))
    return sorted(won), sorted(lost)


def test_the_questions_shown_are_those_that_counting_by_hand_finds(study):
    assert len(known(study)) >= 4
    for one in known(study):
        won, lost = by_hand(one)
        assert (one.num_won, one.num_lost) == (len(won), len(lost))
        assert [flip.doc_id for flip in one.shown] == [doc_id for _, doc_id in (*won[:6], *lost[:6])]


def test_a_question_that_both_have_right_or_both_wrong_is_never_shown(study):
    for one in known(study):
        records = [
            {record["doc_id"]: record for record in read_metrics(cell.samples(one.metric.task))} for cell in one.cells
        ]
        for flip in one.shown:
            scores = [by_id[flip.doc_id]["scores"][one.metric.name] for by_id in records]
            assert scores == ([1, 0] if flip.is_won else [0, 1])


def test_both_answers_stand_with_their_words_and_with_what_either_model_gives_them(study):
    for one in (one for one in known(study) if one.metric.name == "acc"):
        records = [
            {record["doc_id"]: record for record in read_metrics(cell.samples(one.metric.task))} for cell in one.cells
        ]
        words = read_questions(one.cells[0].samples(one.metric.task))
        for flip in one.shown:
            logprobs = [by_id[flip.doc_id]["loglikelihoods"] for by_id in records]
            right, wrong = flip.options
            assert flip.question == words[flip.doc_id].question
            assert right.number == records[0][flip.doc_id]["target"]
            assert right.is_own == ((True, False) if flip.is_won else (False, True))
            loser = logprobs[1 if flip.is_won else 0]
            assert wrong.number == loser.index(max(loser)) != right.number
            for option in flip.options:
                assert option.text == words[flip.doc_id].choices[option.number]
                assert option.logprobs == tuple(own[option.number] for own in logprobs)
            assert flip.change == right.logprobs[0] - right.logprobs[1]


def test_evaluations_of_before_words_were_kept_have_the_same_questions_without_them(study, tmp_path):
    older = committed(tmp_path, has_choices=True)
    for cell in older.cells:
        for path in (cell.folder / "out" / "questions").glob("*"):
            path.unlink()
    for one, other in zip(known(older), known(study), strict=True):
        assert not one.has_words
        assert other.has_words
        assert [flip.doc_id for flip in one.shown] == [flip.doc_id for flip in other.shown]
        assert all(option.text is None for flip in one.shown for option in flip.options)


def test_evaluations_without_any_log_probability_still_name_the_questions(tmp_path):
    for one in known(committed(tmp_path)):
        assert one.shown
        assert all(math.isnan(flip.change) and not flip.options for flip in one.shown)
        won = [flip.doc_id for flip in one.shown if flip.is_won]
        assert won == sorted(won)  # by their ids, where no change is known


def test_a_task_whose_scores_are_shares_is_refused_and_says_so(study):
    refused = [one for one in flips_of(study, study.ablations[0]) if isinstance(one, FlipsRefused)]
    assert {(one.task, one.why) for one in refused} == {("truthfulqa_mc2", "its scores are shares, not right or wrong")}


def test_the_ablations_own_contrast_comes_first_then_the_best_row_against_its_control(study):
    ablation = study.ablations[0]
    pairs = [one.pair for one in flips_of(study, ablation)]
    assert [pair.is_own for pair in pairs] == sorted((pair.is_own for pair in pairs), reverse=True)
    assert pairs[0].is_own
    first = next(pair for pair in pairs if not pair.is_own).plus
    distilled = [row for row in ablation.rows if row.row.model == "distill"]
    assert first.score(ablation.primary).value == max(row.score(ablation.primary).value for row in distilled)


def test_subjects_are_the_clusters_of_a_task_with_the_mean_and_the_difference_of_each(study):
    (one,) = subjects_of(study, study.ablations[0])
    assert one.metric.task == "commonsense_qa"
    assert len(one.subjects) == 8
    records = [list(read_metrics(row.done[0].samples("commonsense_qa"))) for row in (one.pair.plus, one.pair.minus)]
    for subject in one.subjects:
        means = [
            sum(record["scores"]["acc"] for record in own if record["cluster"] == subject.name) / 10 for own in records
        ]
        assert (subject.plus, subject.minus) == pytest.approx(means)
        assert subject.contrast.value == pytest.approx(means[0] - means[1])
    differences = [subject.contrast.value for subject in one.subjects]
    assert differences == sorted(differences, reverse=True)


def test_subjects_of_a_group_are_its_tasks(tmp_path):
    def as_group(results):
        tasks = results["tasks"]
        members = ["hellaswag", "commonsense_qa"]
        mean = sum(tasks[name]["metrics"]["acc"]["value"] for name in members) / 2
        tasks["two"] = {"version": 1, "n": 180, "metrics": {"acc": {"value": mean, "stderr": 0.05}}, "members": members}

    results = committed(tmp_path, edit=as_group)
    (one,) = (one for one in subjects_of(results, results.ablations[0]) if one.metric.task == "two")
    assert {subject.name for subject in one.subjects} == {"hellaswag", "commonsense_qa"}
    for subject in one.subjects:
        metric = one.metric._replace(task=subject.name)
        assert subject.plus == pytest.approx(one.pair.plus.score(metric).value)
        assert subject.contrast == one.pair.plus.difference(one.pair.minus, metric)._replace(
            clusters=subject.contrast.clusters
        )
