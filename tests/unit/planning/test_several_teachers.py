"""Several teachers in a plan: what they are called, whose answers are kept, what they cost; and hidden states."""

import json
from pathlib import Path

import pytest
import yaml
from support import tiny_models as tiny
from support.planned import commit
from support.stub_models import stub_model

from ablate.core.errors import StudyError
from ablate.planning.builder import make_plan
from ablate.planning.module_check import require_layers
from ablate.planning.plan import Plan
from ablate.planning.tokenizer_check import require_equal_tokenizers
from ablate.stages.distill import DISTILL
from ablate.store.hub_lock import Pins
from ablate.store.sizes import fetched_sizes, rows_sizes
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.cells import rows
from ablate.study.load import load

WIDTHS = {"large": 48, "teacher": 32, "student": 16}
SEVERAL = [{"pair": "a", "teacher": "baseline", "weight": 0.25}, {"pair": "b", "weight": 0.75}]


def plan_of(folder: Path, *overrides: str, grid=None, models=("large", "teacher"), pairs=("a", "b")) -> Plan:
    """-> the plan of a study of two pairs, once models and rows are there; `models`: their teachers."""
    for name, width in WIDTHS.items():
        if not (folder / name).is_dir():
            stub_model(folder / name, width * 1000, hidden_size=width, vocab_size=100, name=name, num_hidden_layers=3)
    (folder / "rows.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n')
    named = {
        pair: {"teacher": {"model": f"./{model}"}, "student": {"model": "./student"}}
        for pair, model in zip(pairs, models, strict=True)
    }
    study = {"name": "s", "data": {"source": "rows.jsonl"}, "pairs": named, "evaluate": {"tasks": ["hellaswag"]}}
    study |= {"ablations": {"t": {"grid": grid or {"distill.teachers": [SEVERAL]}}}}
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    study = load(path, overrides)
    table, store = rows(study), Store(folder)
    train = {"rows": 100, "tokens": 2000, "loss_tokens": 1000, "without_loss": 0}
    for stage in make_plan(study, table, Pins({}, {}, ()), store).stages:
        if stage.kind == "fetch" and not store.done(stage):
            commit(store, stage, manifest={"path": getattr(stage.settings, "path", None)})
        if stage.kind == "rows" and not store.done(stage):
            commit(store, stage, "c" * 64, summary={"train": train, "holdout": train | {"loss_tokens": 0}})
    return make_plan(study, table, Pins({}, {}, ()), store)


def distillations(plan: Plan) -> list[Stage]:
    return list({cell.trained.key: cell.trained for cell in plan.cells if cell.row.model == "distill"}.values())


def caches(plan: Plan) -> list[Stage]:
    return [stage for stage in plan.stages if stage.kind == "teacher_cache"]


def test_each_teacher_is_an_input_and_what_tuned_it_is_what_its_pairs_own_row_shows(tmp_path):
    plan = plan_of(tmp_path)
    (stage,) = distillations(plan)
    weights = [one.weight for one in DISTILL.settings_of(stage).recipe.teachers]
    by_model = {
        Path(stage.inputs[name].settings.path).name: (f"{name}_adapter" in stage.inputs, weight)
        for name, weight in zip(("teacher", "teacher_2"), weights, strict=True)
    }
    assert by_model == {"large": (False, 0.25), "teacher": (True, 0.75)}
    (tuned,) = [other for name, other in stage.inputs.items() if name.endswith("_adapter")]
    assert plan.label(tuned) == "finetune b/teacher/finetuned@0"


@pytest.mark.parametrize("change", [{"grid": {"distill.teachers": [SEVERAL[::-1]]}}, {"models": ("teacher", "large")}])
def test_neither_order_nor_names_of_pairs_are_in_the_key(tmp_path, change):
    (stage,) = distillations(plan_of(tmp_path))
    if "models" in change:  # the same teachers under the other's names
        swapped = [one | {"pair": {"a": "b", "b": "a"}[one["pair"]]} for one in SEVERAL]
        change |= {"grid": {"distill.teachers": [swapped]}}
    (other,) = distillations(plan_of(tmp_path, **change))
    assert other.key == stage.key


def test_one_teacher_named_in_a_list_is_that_pairs_own_distillation(tmp_path):
    (named,) = distillations(plan_of(tmp_path, grid={"distill.teachers": [[{"pair": "b"}]]}))
    (own,) = distillations(plan_of(tmp_path, grid={"distill.pair": ["b"]}))
    assert named.key == own.key


def test_each_teachers_hidden_states_are_kept_and_shared_with_rows_that_have_it_alone(tmp_path):
    plan = plan_of(tmp_path, grid={"distill.teachers": ["none", SEVERAL], "distill.kd_ratio": [0.2, 0.4, 0.6]})
    several = [stage for stage in distillations(plan) if "teacher_2" in stage.inputs]
    assert len(several) == 3
    for stage in several:
        assert set(stage.aids) == {"teacher_cache", "teacher_2_cache"}
        for name in ("teacher", "teacher_2"):
            cache = stage.aids[f"{name}_cache"]
            assert cache.settings.form == "hidden"
            assert cache.inputs["teacher"] is stage.inputs[name]
            assert cache.inputs.get("teacher_adapter") is stage.inputs.get(f"{name}_adapter")
    assert any("because several teachers' means are taken of all their logits" in note for note in plan.notes)
    assert {note.partition(" ")[0] for note in plan.notes} >= {"a/teacher/baseline", "b/teacher/finetuned"}
    labels = [plan.label(stage) for stage in plan.stages]
    assert len(set(labels)) == len(labels)


def test_every_teacher_that_runs_beside_costs_its_passes_and_its_memory(tmp_path):
    plan = plan_of(tmp_path, "distill.teacher_cache=none")
    (stage,) = distillations(plan)
    (alone,) = distillations(plan_of(tmp_path, "distill.teacher_cache=none", grid={"distill.pair": ["b"]}))
    cost, of_one = (DISTILL.cost(one, plan.store, {}) for one in (stage, alone))
    large = fetched_sizes(plan.store, next(s for s in stage.inputs.values() if "large" in str(s.settings)))
    scored = cost.tokens * rows_sizes(plan.store, stage.inputs["rows"]).loss_tokens // 2000
    assert cost.flops - of_one.flops == 2 * (cost.tokens * large.num_body + scored * large.num_head)
    assert cost.held.weights - of_one.held.weights == 2 * large.num_params
    assert "teacher_cache" not in stage.aids


def test_features_have_their_teacher_beside_for_a_reason_that_is_told_and_cost_its_states(tmp_path):
    grid = {"distill.features": ["none", "mse"], "distill.kd_ratio": [0.2, 0.4, 0.6]}
    plan = plan_of(tmp_path, grid=grid)
    with_features = [stage for stage in distillations(plan) if DISTILL.settings_of(stage).recipe.features]
    assert [bool(stage.aids) for stage in distillations(plan)].count(False) == len(with_features) == 3
    assert "a/teacher/finetuned runs beside 3 distillations: features need the teacher's layers" in plan.notes
    forced = plan_of(tmp_path, "distill.teacher_cache=hidden", grid={"distill.features": ["mse"]})
    assert caches(forced) == []
    plain = plan_of(tmp_path, "distill.teacher_cache=none", grid={"distill.kd_ratio": [0.5]})
    costs = [DISTILL.cost(distillations(one)[0], one.store, {}) for one in (plain, forced)]
    assert costs[1].held.estimate > costs[0].held.estimate
    assert costs[1].disk_bytes == costs[0].disk_bytes  # the projection is left behind


def test_a_second_teacher_with_another_tokenizer_is_refused_by_name(tmp_path):
    plan_of(tmp_path)
    for name in WIDTHS:
        tiny.tokenizer().save_pretrained(tmp_path / name)
    require_equal_tokenizers(plan_of(tmp_path))
    path = tmp_path / "teacher/tokenizer.json"
    path.write_text(path.read_text().replace('"<user>"', '"<human>"'))
    with pytest.raises(StudyError, match=r"teacher and .*student have different tokenizers"):
        require_equal_tokenizers(plan_of(tmp_path))


def test_layers_are_looked_at_again_once_models_of_the_hub_are_here(tmp_path):
    plan = plan_of(tmp_path, grid={"distill.features": ["mse"]})
    require_layers(plan)
    config = json.loads((tmp_path / "student/config.json").read_text())
    (tmp_path / "student/config.json").write_text(json.dumps(config | {"hidden_size": 8}))
    require_layers(plan)
    plan = plan_of(tmp_path, grid={"distill.features": [{"name": "mse", "layers": [[3, 3]]}]})
    (tmp_path / "student/config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(StudyError, match=r"from large to student: there is no layer 3 of the student: it has 0 to 2"):
        require_layers(plan)
