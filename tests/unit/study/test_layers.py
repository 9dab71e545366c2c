"""Precedence: what a study says twice, and which of it a row is made from."""

from pathlib import Path

import pytest
from support.stub_models import stub_model

from ablate.core.errors import StudyError
from ablate.study.cells import Row, rows
from ablate.study.explain import explain, json_schema
from ablate.study.load import load
from ablate.study.rehearsal import rehearse
from ablate.study.schema import Study

BASE = """
name: base
data: {source: yahma/alpaca-cleaned}
pairs:
  llama:
    teacher: {model: big/teacher}
    student: {model: small/student}
  qwen2.5:
    label: Qwen
    teacher: {model: big/qwen}
    student: {model: small/qwen}
"""
ONE = "ablations: {one: {}}"


@pytest.fixture
def study(tmp_path):
    """Writes a study file over the base and loads it."""

    def load_text(text: str, *overrides: str):
        (tmp_path / "base.yaml").write_text(BASE)
        path = tmp_path / "study.yaml"
        path.write_text(f"extends: base.yaml\n{text}")
        return load(path, overrides)

    return load_text


def _row(study, name: str) -> Row:
    return next(row for row in rows(study) if name in (row.name, f"{row.ablation}/{row.name}"))


def test_defaults_are_the_lowest_layer(study):
    setting = _row(study(ONE), "kd").setting
    assert (setting.distill.lr, setting.distill.batch_size, setting.finetune_teacher.warmup_steps) == (3e-4, 16, 100)


LAYERS = [
    ("train: {lr: 1e-1}", 1e-1, 1e-1),
    ("train: {lr: 1e-1}\ndistill: {lr: 2e-1}", 2e-1, 1e-1),
    ("train: {lr: 1e-1}\nfinetune: {lr: 3e-1}", 1e-1, 3e-1),
    ("finetune: {lr: 3e-1}\npairs: {llama: {distill: {lr: 4e-1}, student: {finetune: {lr: 5e-1}}}}", 4e-1, 5e-1),
]


@pytest.mark.parametrize(("text", "distill", "finetune"), LAYERS)
def test_a_recipe_wins_over_train_and_the_pair_over_both(study, text, distill, finetune):
    setting = _row(study(f"{text}\n{ONE}"), "kd").setting
    assert (setting.distill.lr, setting.finetune_student.lr) == (distill, finetune)


def test_distillation_inherits_train_and_never_a_pairs_finetune(study):
    text = "pairs: {llama: {student: {finetune: {lr: 5e-1}}}}"
    assert _row(study(f"{text}\n{ONE}"), "kd").setting.distill.lr == 3e-4


def test_an_ablations_set_wins_over_the_pair_and_a_cell_over_the_set(study):
    text = """
distill: {temperature: 4.0}
pairs: {llama: {distill: {lr: 4e-1, kd_ratio: 0.9}}}
ablations:
  one:
    set: {distill.lr: 5e-1, train.batch_size: 4}
    grid: {distill.kd_ratio: [0.1, 0.2]}
"""
    distill = _row(study(text), "kd_ratio=0.2").setting.distill
    assert (distill.lr, distill.kd_ratio, distill.temperature, distill.batch_size) == (5e-1, 0.2, 4.0, 4)


def test_within_one_layer_the_recipe_lies_over_train(study):
    text = "ablations: {one: {set: {distill.lr: 1e-2, train.lr: 1e-1}}}"
    setting = _row(study(text), "kd").setting
    assert (setting.distill.lr, setting.finetune_teacher.lr) == (1e-2, 1e-1)


def test_a_train_axis_wins_over_the_pairs_own_recipe(study):
    text = "pairs: {llama: {distill: {lr: 4e-1}}}\nablations: {one: {grid: {train.lr: [1e-1, 2e-1]}}}"
    assert _row(study(text), "lr=0.2").setting.distill.lr == 2e-1


def test_reference_rows_take_the_set_and_no_cell(study):
    text = "ablations: {one: {set: {train.batch_size: 4}, grid: {train.lr: [1e-1, 2e-1]}}}"
    finetune = _row(study(text), "student/finetuned").setting.finetune_student
    assert (finetune.batch_size, finetune.lr) == (4, 3e-4)


def test_nested_mappings_are_merged_field_by_field(study):
    text = """
train: {lora: {rank: 4, alpha: 8, target_modules: [q_proj]}, optimizer: {eps: 1e-6}}
distill: {lora: {rank: 16}}
ablations: {one: {grid: {distill.optimizer.weight_decay: [0.1]}}}
"""
    distill = _row(study(text), "weight_decay=0.1").setting.distill
    assert (distill.lora.rank, distill.lora.alpha, distill.lora.target_modules) == (16, 8, ("q_proj",))
    assert (distill.optimizer.eps, distill.optimizer.weight_decay) == (1e-6, 0.1)


def test_lora_none_trains_every_weight_until_a_layer_above_says_a_rank(study):
    text = "train: {lora: none}\npairs: {llama: {student: {finetune: {lora: {rank: 2}}}}}"
    setting = _row(study(f"{text}\n{ONE}"), "kd").setting
    assert (setting.distill.lora, setting.finetune_student.lora.rank) == (None, 2)


def test_the_uppermost_of_epochs_and_max_steps_says_how_long_a_training_is(study):
    text = "train: {max_steps: 10}\ndistill: {epochs: 3}"
    setting = _row(study(f"{text}\n{ONE}"), "kd").setting
    assert (setting.distill.max_steps, setting.distill.epochs) == (None, 3)
    assert (setting.finetune_student.max_steps, setting.finetune_student.epochs) == (10, None)


def test_another_loss_replaces_the_one_below_with_its_settings(study):
    axis = "[jsd, reverse_kl, {name: jsd, beta: 0.7}]"
    text = f"distill: {{loss: {{name: jsd, beta: 0.3}}}}\nablations: {{one: {{grid: {{distill.loss: {axis}}}}}}}"
    losses = [row.setting.distill.loss for row in rows(study(text)) if row.model == "distill"]
    assert [getattr(loss, "beta", None) for loss in losses] == [0.5, None, 0.7]


def test_a_losss_own_setting_can_be_an_axis(study):
    text = "distill: {loss: jsd}\nablations: {one: {grid: {distill.loss.beta: [0.3, 0.7]}}}"
    assert _row(study(text), "beta=0.7").setting.distill.loss.beta == 0.7


def test_set_edits_the_file_below_everything_else(study):
    text = "distill: {lr: 1e-2}\nablations: {one: {set: {distill.kd_ratio: 0.1}}}"
    distill = _row(study(text, "distill.lr=1e-3", "train.batch_size=4"), "kd").setting.distill
    assert (distill.lr, distill.batch_size, distill.kd_ratio) == (1e-3, 4, 0.1)


def test_set_finds_a_pair_whose_name_has_dots_in_it(study):
    text = "ablations: {one: {set: {distill.pair: qwen2.5}}}"
    edited = study(text, "pairs.qwen2.5.student.finetune.lora.rank=3")
    assert _row(edited, "kd").setting.finetune_student.lora.rank == 3


def test_set_can_edit_an_ablations_grid(study):
    text = "ablations: {one: {grid: {distill.lr: [1e-3, 1e-4]}}}"
    names = [row.name for row in rows(study(text, "ablations.one.grid.distill.lr=[1e-2]"))]
    assert names[4:] == ["lr=0.01"]


def test_a_set_that_says_what_was_so_before_is_fine(study):
    text = "train: {lr: 1e-2}\nfinetune: {lr: 1e-3}\ndistill: {lr: 1e-3}"
    study(f"{text}\n{ONE}", "train.lr=1e-2")
    with pytest.raises(StudyError, match=r"distill\.lr and finetune\.lr override it"):
        study(f"{text}\n{ONE}", "train.lr=1e-1")


@pytest.mark.parametrize(
    "override",
    [
        "report.delta=0.02",
        "seeds=[1, 2]",
        "title=Another",
        "pairs.llama.label=L",
        "ablations.one.title=T",
        "evaluate.limit=5",
        "data.limit=9",
        "dtype=float32",
        "distill.teacher_cache=none",
        "pairs.llama.teacher.revision=abc",
    ],
)
def test_every_other_part_of_a_study_can_be_set(study, override):
    assert study(ONE, override) != study(ONE)


def test_the_nearer_file_wins_and_lists_replace(tmp_path, study):
    (tmp_path / "one.yaml").write_text("seeds: [1, 2]\ntrain: {lr: 1e-1, batch_size: 2}\n")
    (tmp_path / "two.yaml").write_text("extends: one.yaml\nseeds: [3]\ntrain: {lr: 1e-2}\n")
    path = tmp_path / "study.yaml"
    path.write_text(f"{BASE}\nextends: two.yaml\ntrain: {{warmup_steps: 5}}\n{ONE}")
    loaded = load(path)
    assert loaded.seeds == (3,)
    assert loaded.train == {"lr": 1e-2, "batch_size": 2, "warmup_steps": 5}


def test_a_path_is_relative_to_the_file_that_says_it(tmp_path, monkeypatch):
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}')
    (folder / "base.yaml").write_text(BASE.replace("yahma/alpaca-cleaned", "rows.jsonl"))
    (tmp_path / "study.yaml").write_text(f"extends: shared/base.yaml\n{ONE}")
    monkeypatch.chdir(tmp_path)
    assert load(Path("study.yaml")).data.source == str(folder / "rows.jsonl")


def test_a_model_is_a_folder_where_there_is_one_and_else_a_hub_id(tmp_path, study):
    stub_model(tmp_path / "small" / "student")
    setting = _row(study(ONE), "kd").setting
    assert (setting.student.model, setting.teacher.model) == (str(tmp_path / "small/student"), "big/teacher")


def test_a_rehearsal_is_short_whatever_the_study_says(study):
    text = "train: {max_steps: 5}\nfinetune: {epochs: 3}\nevaluate: {limit: 4}"
    rehearsal = rehearse(study(f"{text}\n{ONE}"))
    setting = _row(rehearsal, "kd").setting
    assert rehearsal.name == "base-rehearsal"
    assert (setting.distill.max_steps, setting.distill.warmup_steps) == (5, 2)
    assert (setting.finetune_student.max_steps, setting.finetune_student.epochs) == (8, None)
    assert setting.evaluate.limit == 4


def test_rows_that_a_rehearsal_makes_equal_are_kept(study):
    text = "ablations: {one: {grid: {distill.max_steps: [100, 200]}}}"
    assert len(rows(rehearse(study(text)))) == 6


def test_scaling_by_the_square_of_1_is_no_other_recipe(study):
    plain, scaled = (
        _row(study(f"distill: {{{scaling}}}\n{ONE}"), "kd").setting.distill for scaling in ("", "scale_by_t2: true")
    )
    assert plain == scaled
    assert _row(study(f"distill: {{scale_by_t2: true, temperature: 2}}\n{ONE}"), "kd").setting.distill.scale_by_t2


@pytest.mark.parametrize("above", ["", "set: {distill.temperature: 1.0}, "])
def test_an_axis_that_scales_by_the_square_of_1_is_refused(study, above):
    text = f"ablations: {{one: {{{above}grid: {{distill.scale_by_t2: [false, true]}}}}}}"
    with pytest.raises(StudyError, match=r"scale_by_t2 changes nothing: a temperature of 1 overrides it"):
        study(text)
    with pytest.raises(StudyError, match=r"distill.scale_by_t2 changes nothing: a temperature of 1 overrides it"):
        study(ONE, "distill.scale_by_t2=true")
    assert study(text.replace("1.0", "2.0"), *([] if above else ["distill.temperature=2.0"]))


def test_scaling_may_be_an_axis_beside_temperatures_of_which_one_is_1(study):
    text = "ablations: {one: {grid: {distill.temperature: [1, 2], distill.scale_by_t2: [false, true]}%s}}"
    with pytest.raises(StudyError, match="are the same work and compare nothing"):
        study(text % "")
    exclude = ", exclude: [{distill.temperature: 1, distill.scale_by_t2: true}]"
    assert [row.name for row in rows(study(text % exclude))][4:] == [
        "temperature=1.0,scale_by_t2=false",
        "temperature=2.0,scale_by_t2=false",
        "temperature=2.0,scale_by_t2=true",
    ]


def test_no_file_and_no_set_says_that_it_is_a_rehearsal(study):
    with pytest.raises(StudyError, match=r"study.yaml:2:1: unknown key 'rehearsal'. Possible: ablations, .*") as error:
        study(f"rehearsal: true\n{ONE}")
    assert "report, seeds" in str(error.value)
    with pytest.raises(StudyError, match=r"--set rehearsal=true: 'rehearsal': a study has no 'rehearsal'"):
        study(ONE, "rehearsal=true")


def test_the_record_of_a_rehearsal_is_one_again(study):
    rehearsal = rehearse(study(ONE))
    assert Study.model_validate(rehearsal.model_dump(mode="json")) == rehearsal
    assert "rehearsal" not in json_schema()["properties"]
    assert "rehearsal:" not in explain(rehearsal)
