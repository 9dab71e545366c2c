"""Trainings whose student writes answers: their panels show what was measured, their samples what was written."""

import csv
import io
import json
import re

import pytest
from support.report_study import bench, curve
from support.written_answers import PROMPTS, answer, answers_file, commit_written, written_curve

from ablate.report.exhibits.base import EXHIBITS
from ablate.report.exhibits.curves import ANSWERS, MORE_OF_ANSWERS, debiased
from ablate.report.exhibits.loss_curves import curves_of
from ablate.report.model_text import LONGEST
from ablate.report.page import report_files
from ablate.results.collect import collect

WRITERS = {"one": {"grid": {"distill.answers": ["dataset", "student"]}}}


@pytest.fixture
def study(tmp_path):
    return bench(tmp_path, ablations=WRITERS)


def distilled(study):
    return [cell for cell in study.plan().cells if cell.row.model == "distill"]


def shown(study, name):
    results = collect(study.plan())
    return EXHIBITS[name](results, results.ablations[0])


def rows(piece, path):
    return list(csv.DictReader(io.StringIO(piece.files[path].decode())))


# panels


def test_panels_of_answers_tell_what_was_recorded_at_the_steps_that_have_it(study):
    plain, own = distilled(study)
    study.commit_training(plain)
    commit_written(study, own, every=3)
    records = [json.loads(line) for line in written_curve(own, 60, every=3).splitlines()]
    piece = shown(study, "answers")
    lines = {line["measure"]: line for line in rows(piece, "tables/one-answers.csv")}
    assert list(lines) == [*ANSWERS, *MORE_OF_ANSWERS]
    for measure, line in lines.items():
        values = [record[measure] for record in records if record[measure] is not None]
        assert len(values) == 20
        smooth = debiased(values, 0.67)
        assert line["steps"] == "20"
        assert [float(line[name]) for name in ("first", "last")] == pytest.approx([smooth[0], smooth[-1]])
    assert "reverse KL on own answers over the training, smoothed: answers=student from" in piece.markdown
    assert "answers=dataset" not in piece.markdown
    assert {"figures/one-answers.png", "figures/one-answers-more.png"} <= piece.files.keys()


def test_a_training_without_labels_has_no_class_loss_and_the_page_says_why(study):
    plain, own = distilled(study)
    study.commit_training(plain)
    commit_written(study, own)
    piece = shown(study, "losses")
    assert "No class_loss, since answers of the student have no labels: answers=student." in piece.markdown
    assert "Compare class_loss" not in piece.markdown
    assert "Rows train on answers of different writers, so these losses are at other tokens." in piece.markdown
    known = [(line["loss"], line["label"]) for line in rows(piece, "tables/one-losses.csv")]
    assert ("class_loss", "answers=dataset") in known
    assert ("class_loss", "answers=student") not in known
    assert ("kd_loss", "answers=student") in known


def test_where_no_training_has_labels_there_is_no_panel_for_them(tmp_path):
    study = bench(tmp_path, ablations={"one": WRITERS["one"] | {"references": []}})
    for cell in distilled(study):
        commit_written(study, cell)
    titles = re.findall(r"font-weight:700[^>]*>([a-z_]+)[:<]", shown(study, "losses").html)
    assert titles == ["kd_loss", "loss"]


def test_hidden_state_losses_have_a_panel_where_a_training_has_them(study):
    plain, own = distilled(study)
    study.commit_training(plain)
    assert "feature_loss" not in shown(study, "losses").html
    study.commit_files(own.trained, {"metrics.jsonl": written_curve(own, 30, share=0.5, feature_loss=0.25)})
    piece = shown(study, "losses")
    assert "feature_loss over the training, smoothed: answers=student from 0.250 to 0.250." in piece.markdown


def test_a_measure_that_is_no_longer_finite_ends_its_curve_and_one_that_is_missing_leaves_a_gap(study):
    _, own = distilled(study)
    records = [json.loads(line) for line in written_curve(own, 60, share=0.5).splitlines()]
    records[4] |= {"ended": None, "answer_length": "NaN"}
    study.commit_files(own.trained, {"metrics.jsonl": answers_file(records)})
    results = collect(study.plan())
    (one,) = curves_of(results.ablations[0], results.study.pairs)
    assert list(one.places["ended"]) == [*range(4), *range(5, 60)]
    assert list(one.raw["ended"]) == [record["ended"] for record in records if record["ended"] is not None]
    assert list(one.raw["answer_length"]) == [record["answer_length"] for record in records[:4]]
    assert (one.is_cut("answer_length"), one.is_cut("ended")) == (True, False)


def test_without_answers_of_a_student_there_is_nothing_of_them(study):
    study.commit(*study.plan().cells)
    assert shown(study, "answers") is None
    assert shown(study, "samples") is None
    assert not any("answers" in path or "samples" in path for path in report_files([collect(study.plan())]))


# samples


def kept(tmp_path, final=(), other=(), on_the_way=()):
    """-> a study whose two rows kept these answers."""
    study = bench(tmp_path, ablations=WRITERS)
    for cell, answers in zip(distilled(study), (final, other), strict=True):
        files = {"out/final_samples.jsonl": answers_file(answers), "out/samples.jsonl": answers_file(on_the_way)}
        study.commit_files(cell.trained, {"metrics.jsonl": curve(cell, 6)} | files)
    return study


def test_each_rows_answer_stands_beside_the_others_to_the_same_prompt(tmp_path):
    mine = [answer(row, 60, f"mine {row}", teacher_logprob=-0.25 * row) for row in range(3)]
    study = kept(tmp_path, mine, [answer(row, 60, f"another {row}") for row in (2, 1)])
    piece = shown(study, "samples")
    assert "No answers to these" not in piece.markdown
    lines = rows(piece, "tables/one-samples.csv")
    told = [(line["prompt"], line["row"], line["answer"], line["teacher_logprob"]) for line in lines]
    assert [one[:3] for one in told] == [
        (PROMPTS[0], "answers=dataset", "mine 0"),
        (PROMPTS[1], "answers=dataset", "mine 1"),
        (PROMPTS[1], "answers=student", "another 1"),
        (PROMPTS[2], "answers=dataset", "mine 2"),
        (PROMPTS[2], "answers=student", "another 2"),
    ]
    cards = re.findall(r"<caption>(Prompt \d of 3)(.*?)</table>", piece.html, re.DOTALL)
    assert [title for title, _ in cards] == ["Prompt 1 of 3", "Prompt 2 of 3", "Prompt 3 of 3"]
    assert "another 2" in cards[2][1]
    assert re.search(r"\| KD, answers=dataset \| mine 2 .*\| 6 \| .0.500 \|", piece.markdown)


def test_an_answer_that_no_teacher_was_asked_of_has_no_column_for_it(tmp_path):
    """As a training leaves them today: the likeliest answers to held-out prompts."""
    written = {"split": "holdout", "row": 0, "prompt": "Why?", "answer": "So.", "num_tokens": 2, "ended": True}
    piece = shown(kept(tmp_path, [written], [written | {"answer": "Because."}]), "samples")
    assert "Prompt 1 of 1, held out: Why?" in piece.markdown
    assert "| KD, answers=dataset | So. | 2 |\n| KD, answers=student | Because. | 2 |\n" in piece.markdown
    assert '<th scope="col">Teacher' not in piece.html


def test_a_row_that_kept_no_answers_is_named(tmp_path):
    piece = shown(kept(tmp_path, [answer(0, 60)]), "samples")
    assert "No answers to these prompts were kept of KD, answers=student." in piece.markdown
    assert "No answers to these prompts were kept of KD, answers=student." in piece.html


def test_what_each_row_wrote_to_a_tasks_questions_stands_side_by_side_with_what_it_got_for_it(tmp_path):
    study = kept(tmp_path)
    for cell in study.plan().cells:
        study.commit_evaluation(cell, has_texts=True)
    piece = shown(study, "samples")
    shown_once = {
        (line["row"], line["prompt"]) for line in rows(piece, "tables/one-samples.csv") if line["kept"] == "of a task"
    }
    names = {cell.row.name for cell in study.plan().cells if cell.row.ablation == "one"}
    assert {name for name, _ in shown_once} == names
    assert {prompt for _, prompt in shown_once} == {f"Question {number}:" for number in range(6)}
    assert re.search(r"\| KD, answers=student \| a text \| 3 \| acc [01].00", piece.markdown)
    assert "what each row wrote to the same questions of a task" in piece.html


def test_at_most_six_prompts_are_shown_those_that_most_rows_answered(tmp_path):
    mine = [answer(row, 9, f"mine {row}", prompt=f"prompt {row}") for row in range(9)]
    study = kept(tmp_path, mine, [answer(row, 9, f"another {row}", prompt=f"prompt {row}") for row in range(5, 9)])
    lines = rows(shown(study, "samples"), "tables/one-samples.csv")
    assert list(dict.fromkeys(line["prompt"] for line in lines)) == [f"prompt {row}" for row in (0, 1, 5, 6, 7, 8)]


HIDDEN = (
    "\x07\x1b\0\r\N{RIGHT-TO-LEFT OVERRIDE}\N{ZERO WIDTH SPACE}\N{SOFT HYPHEN}\U000e0041\N{LINE SEPARATOR}\ue000\uffff"
)


def test_whatever_a_model_writes_is_text_and_nothing_in_it_hides(tmp_path):
    text = f"</td></table><script>alert(1)</script>{HIDDEN}a|b `c` **d** [e](f) <img src=x onerror=alert(1)>"
    evil = [answer(0, 60, text, prompt=text, writer=text)]
    piece = shown(kept(tmp_path, evil, evil, evil), "samples")
    for shape in (piece.html, piece.markdown, piece.files["tables/one-samples.csv"].decode()):
        assert not set(HIDDEN) & set(shape)
        assert all(f"⟨U+{ord(letter):04X}⟩" in shape for letter in HIDDEN)
    assert "<script>" not in piece.html + piece.markdown
    assert "<img" not in piece.html + piece.markdown
    assert not re.search(r"(?<!\\)\|b|(?<!\\)`c|(?<!\\)\*\*d", piece.markdown)


def test_line_breaks_are_kept_and_joined_emoji_stay_whole(tmp_path):
    family = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}"
    piece = shown(kept(tmp_path, [answer(0, 60, f"one\n\ttwo {family}")]), "samples")
    assert f"one\n\ttwo {family}</span>" in piece.html
    assert f"one ⏎ two {family}" in piece.markdown


def test_a_long_text_is_shortened_and_an_answer_that_never_ended_is_marked(tmp_path):
    long = "x" * (LONGEST + 1234)
    ends = [answer(0, 1, long, ended=False, num_tokens=1500, prompt=f"{long}?"), answer(1, 1, "short", ended=True)]
    piece = shown(kept(tmp_path, ends), "samples")
    for shape in (piece.html, piece.markdown):
        assert "x" * LONGEST in shape
        assert "x" * (LONGEST + 1) not in shape
        assert "shortened here: 1,234 more characters" in shape
        assert "1,235 characters left out" in shape
        assert shape.count("not ended after 1,500 tokens") == shape.count("not ended") == 1
    assert rows(piece, "tables/one-samples.csv")[0]["answer"] == long


def test_over_a_training_the_first_the_middle_and_the_last_answer_to_one_prompt_are_shown(tmp_path):
    steps = [answer(row, step, f"row {row} at {step}") for step in (10, 20, 30, 40, 50) for row in (3, 4)]
    piece = shown(kept(tmp_path, on_the_way=[answer(7, 5, "once"), *steps]), "samples")
    told = [line["answer"] for line in rows(piece, "tables/one-samples.csv") if line["row"] == "answers=dataset"]
    assert told == ["row 3 at 10", "row 3 at 30", "row 3 at 50"]
    assert "step 10" in piece.markdown


def test_where_no_prompt_was_kept_twice_each_step_has_its_own(tmp_path):
    steps = [answer(step, step, f"at {step}", writer="mixed") for step in (1, 2, 4)]
    piece = shown(kept(tmp_path, on_the_way=steps), "samples")
    assert all(piece.html.count(PROMPTS[step]) == 2 for step in (1, 2, 4))  # of two rows
    assert "step 4, mixed" in piece.markdown


def test_a_damaged_file_is_not_shown(tmp_path):
    study = kept(tmp_path, [answer(0, 1, "as it was")])
    path = study.store.folder(distilled(study)[0].trained) / "out" / "final_samples.jsonl"
    path.write_text(path.read_text().replace("as it was", "as it is."))
    assert shown(study, "samples") is None


def test_one_line_of_another_shape_keeps_no_other_from_being_shown(tmp_path):
    study = kept(tmp_path, [{"step": 1}, answer(0, 1, "whole", teacher_logprob="NaN", another=1)])
    assert "whole" in shown(study, "samples").markdown
    assert "| NaN |" in shown(study, "samples").markdown


def test_what_a_teacher_wrote_beforehand_is_shown_once_for_all_rows_that_learn_from_it(tmp_path):
    grid = {"distill.answers": ["dataset", "teacher"], "distill.lr": [1e-3, 1e-4]}
    study = bench(tmp_path, ablations={"one": {"grid": grid}})
    trained = [cell.trained for cell in distilled(study) if "answers" in cell.trained.inputs]
    (written,) = {stage.inputs["answers"].key: stage.inputs["answers"] for stage in trained}.values()
    answers = [answer(row, 0, f"taught {row}", writer="teacher") for row in range(5)]
    study.commit_files(written, {"out/answers.jsonl": answers_file(answers)})
    piece = shown(study, "samples")
    assert "For answers=teacher, lr=0.001 and answers=teacher, lr=0.0001" in piece.html
    assert [row in piece.markdown for row in map("taught {}".format, range(5))] == [True, True, True, False, False]
    assert piece.markdown.count("| beforehand | Question: what are") == 3
