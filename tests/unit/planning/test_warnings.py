"""What may be meant in a study, but seldom is."""

import pytest
import yaml
from support.local_study import study as study

from ablate.core.errors import StudyError
from ablate.planning.project import open_study
from ablate.planning.warnings import near_folders, study_warnings


def _warnings(study, *overrides: str) -> list[str]:
    project = open_study(study, study.parent, overrides)
    return [warning for warning in study_warnings(project.study, project.rows) if "warm-up" not in warning]


def test_a_learning_rate_above_a_tenth_is_warned_of_and_one_above_1_is_refused(study):
    rows = "".join('{"instruction": "a", "input": "", "output": "b"}\n' for _ in range(16))
    (study.parent / "rows.jsonl").write_text(rows)
    assert _warnings(study, "train.lr=0.1") == []
    (warning,) = _warnings(study, "distill.lr=0.2")
    assert warning.startswith("ratio/kd_ratio=0.25, ratio/kd_ratio=0.5: a learning rate of 0.2 is far above")
    (warning,) = _warnings(study, "train.lr=1")
    assert "p finetune of the student" in warning
    with pytest.raises(StudyError, match=r"train\.lr: 2 is no learning rate: .* Is 2e-5 meant, or 2e-4\?"):
        _warnings(study, "train.lr=2")


@pytest.mark.parametrize(
    ("sets", "num_rows"), [(("data.limit=10", "data.holdout=2"), 8), (("train.batch_size=32",), 20), ((), None)]
)
def test_a_batch_of_more_rows_than_there_are_is_told_once(study, sets, num_rows):
    rows = "".join('{"instruction": "a", "input": "", "output": "b"}\n' for _ in range(20))
    (study.parent / "rows.jsonl").write_text(rows)
    told = [warning for warning in _warnings(study, *sets) if "batch_size" in warning]
    assert len(told) == (1 if num_rows else 0)
    if num_rows:
        assert f"is more than the {num_rows} rows to train on: every step takes all of them" in told[0]


def test_a_limit_tells_it_of_data_on_the_hub_too(study):
    told = _warnings(study, "data.source=yahma/alpaca-cleaned", "data.limit=4")
    assert any("batch_size 16 is more than the 4 rows" in warning for warning in told)


@pytest.mark.parametrize(
    ("model", "near"), [("studnet", "./student"), ("models/studnet", "./models/student"), ("gpt2", None)]
)
def test_a_hub_id_that_is_nearly_a_folder_beside_the_study_is_told(study, model, near):
    (study.parent / "models/student").mkdir(parents=True)
    project = open_study(study, study.parent, (f"pairs.p.student.model={model}",))
    told = list(near_folders(project.rows, study.parent))
    words = f"{model!r} is taken for a model of the hub; the folder {near} lies beside the study"
    assert told == ([words] if near else [])


LR = {"distill.lr": [1e-3, 1e-4]}


@pytest.mark.parametrize(
    ("distill", "grid", "words"),
    [
        ({"answers": "student", "sampling": {"mix": 0.3}}, LR, "sampling.mix changes nothing: having no mixed answers"),
        ({"student_loss": "jsd"}, {}, "student_loss changes nothing: having no answers of the student overrides it"),
        ({"teacher_mean": "losses"}, {}, "teacher_mean changes nothing: having one teacher overrides it"),
        ({"student_loss": "jsd"}, {"distill.student_fraction": [0.0, 0.5]}, None),
        ({"student_fraction": 0.25}, {"distill.student_fraction": [0.0, 0.5]}, None),
    ],
)
def test_what_a_file_says_of_answers_to_no_effect_is_warned_of_and_a_default_that_every_row_overrides_is_not(
    study, distill, grid, words
):
    data = yaml.safe_load(study.read_text())
    ablations = {"a": {"grid": grid}} if grid else data["ablations"]
    of_prompts = {"data": data["data"] | {"train_on_prompt": False}}
    study.write_text(yaml.safe_dump(data | of_prompts | {"distill": distill, "ablations": ablations}))
    warnings = [warning for warning in _warnings(study) if "changes nothing" in warning]
    assert len(warnings) == (1 if words else 0)
    if words:
        assert warnings[0].startswith(f"distill.{words}")
