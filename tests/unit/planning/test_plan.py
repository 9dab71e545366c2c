"""The plan: equal work once, keys that hold what matters, and every piece named."""

import time
from pathlib import Path
from typing import Any

import yaml
from support.stub_models import stub_model

from ablate.planning.builder import make_plan
from ablate.planning.plan import Plan
from ablate.planning.warnings import study_warnings
from ablate.store.hub_lock import Pins
from ablate.store.store import Store
from ablate.study import catalog, named_models
from ablate.study.cells import rows
from ablate.study.load import load
from ablate.study.sources import repositories

NO_PINS = Pins({}, {}, ())


def _study(folder: Path, **changes) -> Path:
    for name in ("teacher", "student"):
        stub_model(folder / name, name=name)
    (folder / "rows.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n')
    study = {
        "name": "s",
        "data": {"source": "rows.jsonl"},
        "pairs": {"p": {"teacher": {"model": "./teacher"}, "student": {"model": "./student"}}},
        "evaluate": {"tasks": ["hellaswag"]},
        "ablations": {
            "teacher": {"grid": {"distill.teacher": ["baseline", "finetuned"]}},
            "ratio": {"grid": {"distill.kd_ratio": [0.25, 0.5]}},
        },
    }
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump(study | changes, sort_keys=False))
    return path


def _plan(path: Path, *overrides: str) -> Plan:
    study = load(path, overrides)
    return make_plan(study, rows(study), NO_PINS, Store(path.parent))


def _count(plan: Plan) -> dict[str, int]:
    kinds = [stage.kind for stage in plan.stages]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def test_equal_work_is_planned_once_across_ablations(tmp_path):
    counts = _count(_plan(_study(tmp_path)))
    # kd_ratio 0.5 with a fine-tuned teacher stands in both tables; hellaswag's data is one more fetch
    # and two of the three distillations ask the same teacher
    assert counts == {"fetch": 4, "rows": 1, "finetune": 2, "teacher_cache": 1, "distill": 3, "evaluate": 7}


def test_every_stage_comes_after_its_inputs(tmp_path):
    seen: set[str] = set()
    for stage in _plan(_study(tmp_path)).stages:
        assert {needed.key for needed in stage.inputs.values()} <= seen
        seen.add(stage.key)


def test_two_studies_share_what_is_equal(tmp_path):
    one, other = _plan(_study(tmp_path)), _plan(_study(tmp_path, name="other", title="Another"))
    assert [stage.key for stage in one.stages] == [stage.key for stage in other.stages]


def test_a_model_may_move_to_another_folder_and_keep_its_keys(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    keys = [[stage.key for stage in _plan(_study(tmp_path / name)).stages] for name in ("a", "b")]
    assert keys[0] == keys[1]


def test_a_changed_model_or_row_changes_what_is_trained_on_it(tmp_path):
    before = {stage.key for stage in _plan(_study(tmp_path)).stages if stage.kind == "distill"}
    path = _study(tmp_path)
    stub_model(tmp_path / "student", name="another")
    after = {stage.key for stage in _plan(path).stages if stage.kind == "distill"}
    assert not before & after


def test_a_runtime_setting_changes_no_key(tmp_path):
    path = _study(tmp_path)
    plain, tuned = _plan(path), _plan(path, "train.checkpoint_every_s=1", "distill.teacher_cache=none")
    assert [s.key for s in plain.stages if s.kind != "teacher_cache"] == [s.key for s in tuned.stages]


def test_students_are_trained_once_a_seed_and_the_teacher_once(tmp_path):
    plan = _plan(_study(tmp_path, seeds=[0, 1, 2]))
    assert _count(plan)["finetune"] == 1 + 3
    assert _count(plan)["distill"] == 3 * 3
    assert [cell.name for cell in plan.cells][:5] == [
        "teacher/teacher/baseline",
        "teacher/teacher/finetuned@0",
        "teacher/student/baseline",
        "teacher/student/finetuned@0",
        "teacher/student/finetuned@1",
    ]


def test_the_control_can_be_repeated_under_another_seed(tmp_path):
    plan = _plan(_study(tmp_path, report={"replicate": 1}))
    assert "ratio/student/finetuned/replicate@1" in [cell.name for cell in plan.cells]


def test_a_plan_has_the_rows_of_its_study_each_once(tmp_path):
    path = _study(tmp_path, report={"replicate": 2}, seeds=[0, 1])
    assert _plan(path).rows == rows(load(path))


def test_a_control_that_is_not_trained_is_not_repeated_and_a_reader_is_told(tmp_path):
    path = _study(tmp_path, report={"replicate": 1}, ablations={"a": {"control": "student/baseline"}})
    plan = _plan(path)
    assert not [cell.name for cell in plan.cells if "replicate" in cell.name]
    assert any(
        "is not trained: no other seed could change it" in warning for warning in study_warnings(plan.study, plan.rows)
    )


def test_keys_are_provisional_until_the_rows_are_made(tmp_path):
    plan = _plan(_study(tmp_path))
    provisional = {stage.kind for stage in plan.stages if stage.is_provisional}
    assert provisional == {"finetune", "teacher_cache", "distill", "evaluate"}


def test_a_stage_is_named_by_its_cell_for_a_reader(tmp_path):
    plan = _plan(_study(tmp_path))
    labels = [plan.label(stage) for stage in plan.stages]
    assert "finetune p/teacher/finetuned@0" in labels
    assert "distill ratio/kd_ratio=0.25@0" in labels
    assert "evaluate p/student/baseline" in labels
    assert "teacher_cache p/teacher/finetuned, vector" in labels
    assert len(set(labels)) == len(labels)


def test_a_local_study_asks_the_hub_for_the_task_data_alone(tmp_path):
    assert [repo.id for repo in repositories(rows(load(_study(tmp_path))))] == ["Rowan/hellaswag"]


def test_a_thousand_cells_are_planned_within_two_seconds(tmp_path):
    ratios = [round(i / 500, 4) for i in range(1, 501)]
    ablations = {"big": {"grid": {"distill.kd_ratio": ratios, "distill.teacher": ["baseline", "finetuned"]}}}
    path = _study(tmp_path, ablations=ablations)
    seconds = []
    for _ in range(3):  # the fastest: others may be at work on this machine
        began = time.process_time()
        plan = _plan(path)
        seconds.append(time.process_time() - began)
        assert len(plan.cells) == 1004
        assert len(plan.stages) > 2000
    assert min(seconds) < 2.0


def test_what_many_cells_share_is_looked_up_on_the_disk_as_often_as_for_few(tmp_path, monkeypatch):
    looks: list[str] = []

    def counted(module: Any, name: str) -> None:
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args: (looks.append(name), original(*args))[1])

    counted(named_models, "files_of")
    counted(catalog, "stamp")
    nums = []
    for num_ratios in (2, 40):
        path = _study(tmp_path, ablations={"a": {"grid": {"distill.kd_ratio": [i / 80 for i in range(num_ratios)]}}})
        planned_rows = rows(load(path))
        looks.clear()
        repositories(planned_rows)
        make_plan(load(path), planned_rows, NO_PINS, Store(tmp_path))
        nums.append(len(looks))
    assert nums[0] == nums[1] > 0
