"""Rows: their order, names and labels, and the control each is compared with."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
from support.paths import STUDIES

from ablate.core.errors import StudyError
from ablate.planning.warnings import study_warnings
from ablate.study.cells import rows, work_key
from ablate.study.load import load

BASE = """
name: base
data: {source: yahma/alpaca-cleaned}
pairs:
  llama:
    label: Llama 8B to 1B
    teacher: {model: big/teacher, label: 8B}
    student: {model: small/student}
  qwen:
    teacher: {model: big/qwen}
    student: {model: small/qwen}
ablations:
  one:
"""


@pytest.fixture
def rows_of(tmp_path):
    def laid_out(ablation: str, *overrides: str):
        path = tmp_path / "study.yaml"
        path.write_text(BASE + "".join(f"    {line}\n" for line in ablation.strip().splitlines()))
        return rows(load(path, overrides))

    return laid_out


def _names(some_rows) -> list[str]:
    return [row.name for row in some_rows]


def warned(study, *num_rows) -> tuple[str, ...]:
    return study_warnings(study, rows(study), *num_rows)


def test_the_tutorials_study_is_4_fine_tunings_11_distillations_and_19_evaluations():
    tutorial = rows(load(STUDIES / "kd_llama.yaml"))
    assert len({work_key(row) for row in tutorial}) == 19
    assert len({work_key(row) for row in tutorial if row.model == "distill"}) == 11
    assert len({work_key(row) for row in tutorial if row.model.endswith("finetuned")}) == 4


def test_the_tutorials_rows_have_their_names_and_labels():
    tutorial = [
        row for row in rows(load(STUDIES / "kd_llama.yaml")) if row.ablation in ("finetuned_student", "learning_rate")
    ]
    lines = [
        f"{row.ablation}/{row.name} | {row.label}"
        for row in tutorial
        if row.model == "distill" or row.ablation == "finetuned_student"
    ]
    assert lines == [
        "finetuned_student/teacher/baseline | Baseline teacher (8B)",
        "finetuned_student/teacher/finetuned | Fine-tuned teacher (8B) using LoRA",
        "finetuned_student/student/baseline | Baseline student (1B)",
        "finetuned_student/student/finetuned | Fine-tuned student (1B) using LoRA",
        "finetuned_student/teacher=baseline,student=baseline | KD, baseline teacher, baseline student",
        "finetuned_student/teacher=baseline,student=finetuned | KD, baseline teacher, fine-tuned student",
        "finetuned_student/teacher=finetuned,student=baseline | KD, fine-tuned teacher, baseline student",
        "finetuned_student/teacher=finetuned,student=finetuned | KD, fine-tuned teacher, fine-tuned student",
        "learning_rate/lr=0.001 | KD, lr=0.001",
        "learning_rate/lr=0.0003 | KD, lr=0.0003",
        "learning_rate/lr=0.0001 | KD, lr=0.0001",
        "learning_rate/lr=1e-05 | KD, lr=1e-05",
    ]


def test_cells_are_the_grid_then_the_zip_then_the_rows(rows_of):
    ablation = """
grid: {distill.lr: [1e-3, 1e-4], distill.kd_ratio: [0.25, 0.75]}
exclude: [{distill.lr: 0.001, distill.kd_ratio: 0.75}]
zip: {distill.temperature: [2, 4.0], distill.batch_size: [8, 32]}
rows: [{label: slow, settings: {distill.lr: 1e-6}}]
"""
    assert _names(rows_of(ablation))[4:] == [
        "lr=0.001,kd_ratio=0.25",
        "lr=0.0001,kd_ratio=0.25",
        "lr=0.0001,kd_ratio=0.75",
        "temperature=2.0,batch_size=8",
        "temperature=4.0,batch_size=32",
        "slow",
    ]


def test_axes_that_end_alike_are_told_apart(rows_of):
    names = _names(rows_of("grid: {distill.lr: [1e-3], finetune.lr: [1e-4]}"))
    assert names[4:] == ["distill.lr=0.001,finetune.lr=0.0001"]


def test_a_value_that_is_no_number_has_a_slug(rows_of):
    ablation = (
        "grid: {distill.loss: [forward_kl, {name: jsd, beta: 0.25}], distill.lora.target_modules: [[q_proj, v_proj]]}"
    )
    assert _names(rows_of(ablation))[4:] == [
        "loss=forward_kl,target_modules=q_proj+v_proj",
        "loss=jsd-beta0.25,target_modules=q_proj+v_proj",
    ]


def test_each_pair_of_a_grid_has_its_own_references_and_control(rows_of):
    grid = "grid: {distill.pair: [llama, qwen], distill.lr: [1e-3, 1e-4]}"
    laid_out = rows_of(f"{grid}\nreferences: [teacher/baseline, student/finetuned]")
    assert [(row.name, row.label, row.control) for row in laid_out][:5] == [
        ("llama/teacher/baseline", "Llama 8B to 1B: Baseline teacher (8B)", "llama/student/finetuned"),
        ("llama/student/finetuned", "Llama 8B to 1B: Fine-tuned student using LoRA", "llama/student/finetuned"),
        ("qwen/teacher/baseline", "qwen: Baseline teacher", "qwen/student/finetuned"),
        ("qwen/student/finetuned", "qwen: Fine-tuned student using LoRA", "qwen/student/finetuned"),
        ("pair=llama,lr=0.001", "KD, Llama 8B to 1B, lr=0.001", "llama/student/finetuned"),
    ]
    assert laid_out[-1].control == "qwen/student/finetuned"


def test_a_cell_can_be_the_control_of_each_pair(rows_of):
    laid_out = rows_of("grid: {distill.pair: [llama, qwen], distill.lr: [1e-3, 1e-4]}\ncontrol: lr=0.001")
    assert {row.control for row in laid_out if row.setting.pair == "qwen"} == {"pair=qwen,lr=0.001"}


def test_full_fine_tuning_is_labelled_without_lora(rows_of):
    assert rows_of("{}", "finetune.lora=none")[3].label == "Fine-tuned student"


def test_only_what_a_row_uses_is_its_work(rows_of):
    one, other = (rows_of("set: {distill.teacher: baseline}", *more)[4] for more in ([], ["finetune.lr=1e-1"]))
    assert work_key(one) == work_key(other)
    finetuned = (rows_of("{}", *more)[4] for more in ([], ["finetune.lr=1e-1"]))
    assert len({work_key(row) for row in finetuned}) == 2


def test_how_a_result_is_made_is_not_its_work(rows_of):
    one, other = (rows_of("{}", *more)[4] for more in ([], ["train.gradient_checkpointing=true"]))
    assert work_key(one) == work_key(other)


def test_models_that_ship_with_ablate_are_named_by_builtin(rows_of):
    with pytest.raises(StudyError, match=r"builtin:tiny/nobody' is not shipped with ablate"):
        rows_of("{}", "pairs.llama.student.model=builtin:tiny/nobody")


def test_a_warm_up_over_half_a_training_is_warned_of(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(BASE + "    set: {distill.max_steps: 150}\n")
    assert warned(load(path)) == (
        "pair qwen is in no ablation",
        "one/kd: warm-up for 100 of 150 steps; train.warmup_steps says how many",
    )


ROW = {"instruction": "a", "input": "", "output": "b"}
WRITERS = {
    ".jsonl": lambda path, rows: path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n"),
    ".json": lambda path, rows: path.write_text(json.dumps({"data": rows})),
    ".csv": lambda path, rows: path.write_text("instruction,input,output\n" + 'a,,"b\nc"\n' * len(rows)),
    ".parquet": lambda path, rows: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path),
}


ALONE = """
    references: [student/baseline]
    control: student/baseline
    set: {distill.teacher: baseline}
"""
HUB = "{source: yahma/alpaca-cleaned}"


def _warned(folder: Path, data: str) -> str:
    path = folder / "study.yaml"
    path.write_text(BASE.replace(HUB, data) + ALONE)
    return "; ".join(warning for warning in warned(load(path)) if "warm-up" in warning)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_warm_up_is_held_against_the_rows_of_a_file(tmp_path, suffix):
    WRITERS[suffix](tmp_path / f"rows{suffix}", [ROW] * 113)
    warning = _warned(tmp_path, f"{{source: rows{suffix}}}")
    assert warning == "one/kd: warm-up for 100 of 7 steps; train.warmup_steps says how many"


@pytest.mark.parametrize(
    ("option", "steps"), [("limit: 40", 2), ("limit: 999", 7), ("holdout: 8", 6), ("holdout: 112", 1)]
)
def test_limit_and_holdout_count_for_how_long_a_training_is(tmp_path, option, steps):
    WRITERS[".jsonl"](tmp_path / "rows.jsonl", [ROW] * 113)
    assert f"of {steps} steps" in _warned(tmp_path, f"{{source: rows.jsonl, {option}}}")


@pytest.mark.parametrize(("num", "warned_of"), [(15, "15 rows"), (16, ""), (40, "")])
def test_a_batch_that_is_larger_than_the_rows_is_warned_of(tmp_path, num, warned_of):
    WRITERS[".jsonl"](tmp_path / "rows.jsonl", [ROW] * num)
    path = tmp_path / "study.yaml"
    path.write_text(BASE.replace(HUB, "{source: rows.jsonl}") + ALONE)
    found_of_batches = [warning for warning in warned(load(path)) if "batch_size" in warning]
    message = f"one/kd: batch_size 16 is more than the {warned_of} to train on: every step takes all of them"
    assert [warning.partition(", so")[0] for warning in found_of_batches] == ([message] if warned_of else [])


def test_a_file_that_grew_is_counted_anew(tmp_path):
    for number in (113, 160):
        WRITERS[".jsonl"](tmp_path / "rows.jsonl", [ROW] * number)
        assert f"of {number // 16} steps" in _warned(tmp_path, "{source: rows.jsonl}")


def test_a_file_that_takes_long_to_count_gives_no_warning_of_a_warm_up(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([ROW | {"output": "b" * 51_000_000}]))
    path = tmp_path / "study.yaml"
    path.write_text(BASE.replace("{source: yahma/alpaca-cleaned}", "{source: rows.json}") + "    {}\n")
    assert warned(load(path)) == ("pair qwen is in no ablation",)


def test_what_is_known_of_the_rows_decides_whether_a_warm_up_is_long(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(BASE + ALONE)
    study = load(path)
    assert _warned(tmp_path, HUB) == ""
    assert warned(study, lambda _: 16 * 201) == ("pair qwen is in no ablation",)
    warning = "one/kd: warm-up for 100 of 200 steps; train.warmup_steps says how many"
    assert warned(study, lambda _: 16 * 200)[1:] == (warning,)


KD_ONLY = [
    "distill.loss: [forward_kl, reverse_kl]",
    "distill.temperature: [1, 2]",
    "distill.teacher: [baseline, finetuned]",
]


@pytest.mark.parametrize("axis", KD_ONLY)
def test_rows_of_class_loss_alone_that_differ_in_the_kd_loss_are_warned_of(tmp_path, axis):
    path = tmp_path / "study.yaml"
    path.write_text(f"{BASE}    grid: {{distill.kd_ratio: [0, 0.5], {axis}}}\n")
    (warning,) = warned(load(path))[1:]
    assert re.fullmatch(
        r"one/kd_ratio=0.0,\S+, one/kd_ratio=0.0,\S+: kd_ratio is 0, so only their KD curves differ.*", warning
    )


def test_rows_of_class_loss_alone_that_train_otherwise_are_not_warned_of(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(f"{BASE}    grid: {{distill.kd_ratio: [0, 0.5], distill.lr: [1e-3, 1e-4]}}\n")
    assert warned(load(path))[1:] == ()


@pytest.mark.parametrize(
    "grid",
    [
        "distill.student_fraction: [0.5], distill.loss: [forward_kl, reverse_kl], data.train_on_prompt: [false]",
        "distill.answers: [teacher], distill.teacher: [baseline, finetuned], data.train_on_prompt: [false]",
    ],
)
def test_rows_whose_answers_the_kd_loss_or_the_teacher_makes_are_no_one_model(tmp_path, grid):
    path = tmp_path / "study.yaml"
    path.write_text(f"{BASE}    grid: {{distill.kd_ratio: [0, 0.5], {grid}}}\n")
    assert warned(load(path))[1:] == ()


@pytest.mark.parametrize("name", ["kd_llama", "kd_on_policy", "quickstart", "tiny", "tiny_on_policy"])
def test_the_studies_beside_the_package_are_right_and_warn_of_nothing(name):
    assert warned(load(STUDIES / f"{name}.yaml")) == ()


def test_a_thousand_cells_are_read_and_laid_out_quickly(tmp_path):
    axes = {
        "distill.lr": [i / 1e4 for i in range(1, 11)],
        "distill.kd_ratio": [i / 10 for i in range(10)],
        "train.warmup_steps": list(range(10)),
    }
    path = tmp_path / "study.yaml"
    path.write_text(f"{BASE}    grid: {axes}\n")
    start = time.process_time()
    assert len(rows(load(path))) == 1004
    assert time.process_time() - start < 1.5


def test_reading_a_study_imports_no_torch():
    heavy = "torch transformers lm_eval datasets peft pandas matplotlib scipy numpy"
    code = (
        "import sys; from pathlib import Path; from ablate.study.load import load; from ablate.study.cells import rows;"
        f"rows(load(Path({str(STUDIES / 'kd_llama.yaml')!r}))); print([m for m in {heavy.split()} if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
