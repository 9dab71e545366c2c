"""A file or folder that is not there is told with the one that was perhaps meant."""

import pytest
from support.local_study import study as study

from ablate.core.errors import StudyError
from ablate.study.load import load


def _error(study, before: str, after: str) -> str:
    text = study.read_text()
    assert before in text
    study.write_text(text.replace(before, after))
    with pytest.raises(StudyError) as error:
        load(study)
    return str(error.value)


@pytest.mark.parametrize(
    ("before", "after", "hint"),
    [
        ("./teacher", "./taecher", "Did you mean './teacher'?"),
        ("./teacher", "../{above}/Teacher", "Did you mean './teacher'?"),
        ("./teacher", "{folder}/techer", "Did you mean '{folder}/teacher'?"),
        ("./teacher", "./modle/deep/teacher", "Did you mean './models/deep/teacher'?"),
        ("./teacher", "./modle/deep/xyz", "Did you mean './models'?"),
        ("./teacher", "./modle/dep/teachr", "Did you mean './models/deep/teacher'?"),
        ("./teacher", "./bigg", "Possible: ./models, ./student, ./teacher."),
        ("rows.jsonl", "row.jsonl", "Did you mean './rows.jsonl'?"),
        ("rows.jsonl", "rows.json", "Did you mean './rows.jsonl'?"),
        ("rows.jsonl", "./Rows", "Did you mean './rows.jsonl'?"),
    ],
)
def test_a_name_that_is_near_is_told_as_the_study_would_say_it(study, before, after, hint):
    (study.parent / "models/deep/teacher").mkdir(parents=True)
    names = {"folder": str(study.parent), "above": study.parent.name}
    message = _error(study, before, after.format(**names))
    assert message.endswith(f"). {hint.format(**names)}")
    assert message.startswith(f"{study}:")


def test_nothing_is_guessed_where_nothing_is_near_and_much_lies_there(study):
    for number in range(20):
        (study.parent / f"checkpoint-{number}").mkdir()
    message = _error(study, "./teacher", "./bigg")
    assert message.endswith("/bigg)")


def test_a_task_folder_and_a_file_of_scores_have_near_names_too(study):
    (study.parent / "tasks").mkdir()
    (study.parent / "scores.yaml").write_text("{}")
    message = _error(study, "evaluate:\n", "published: score.yaml\nevaluate:\n  include_path: task\n")
    assert "Did you mean './scores.yaml'?" in message
    assert "Did you mean './tasks'?" in message
