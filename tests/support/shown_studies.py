"""Studies to look at, with made-up results on disk; `python tests/show.py NAME ROOT` writes one and its report.

tutorial    torchtune's tutorial, three seeds, beside its published scores
one_seed    the same with one seed
grid        a grid of two axes, three seeds
generation  a task that asks for texts, and a group of tasks
failures    failed, diverged, damaged, blocked and waiting cells, rows that were cut
running     ten minutes into its run
large       200 cells of ten ablations, all questions of three tasks
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ablate.planning.plan import Plan
from ablate.planning.project import Project
from ablate.store.stage import Stage
from ablate.study.load import load
from support.paths import STUDIES
from support.planned import offline_plan, pins_of
from support.shown_skills import published_skill, skill_of
from support.shown_stages import MadeUp

PAIRS: dict[str, Any] = yaml.safe_load((STUDIES / "kd_llama.yaml").read_text())["pairs"]
BASE: dict[str, Any] = {
    "data": {"source": "yahma/alpaca-cleaned", "format": "alpaca", "holdout": 256},
    "pairs": {"llama": PAIRS["llama"]},
    "distill": {"batch_size": 128, "teacher_cache": "none"},
    "evaluate": {"tasks": ["hellaswag", "commonsense_qa"]},
    "seeds": [0, 1, 2],
    "report": {"primary": "hellaswag/acc_norm", "delta": 0.01},
}
LOSSES = ["forward_kl", "reverse_kl", "symmetric_kl", "jsd", "tvd", "skew_forward_kl"]
GRID = {
    "title": "Learning rate and KD ratio together",
    "ablations": {
        "lr_and_ratio": {
            "title": "Learning rate and KD ratio",
            "question": "Does the best learning rate hang on the KD ratio?",
            "grid": {"distill.lr": [1e-3, 3e-4, 1e-4], "distill.kd_ratio": [0.25, 0.5, 0.75]},
        }
    },
}
GENERATION = {
    "title": "Distillation for sums in words",
    "data": {**BASE["data"], "train_on_prompt": False},
    "evaluate": {"tasks": ["gsm8k", "mmlu_stem"]},
    "report": {"primary": "gsm8k/exact_match,strict-match"},
    "seeds": [0, 1],
    "ablations": {
        "answers": {
            "title": "Whose answers are trained on",
            "question": "Does the student learn more from answers that the teacher writes?",
            "grid": {"distill.answers": ["dataset", "teacher"]},
        },
        "kd_ratio": {
            "title": "KD ratio",
            "question": "How much of the loss should be the teacher's?",
            "grid": {"distill.kd_ratio": [0.25, 0.5, 1.0]},
        },
    },
}
FAILURES = {
    "title": "A study with failures",
    "ablations": {
        "learning_rate": {
            "title": "Learning rate",
            "question": "Which learning rate suits distillation?",
            "grid": {"distill.lr": [1e-2, 1e-3, 3e-4, 1e-4]},
        },
        "teacher": {
            "title": "Which teacher",
            "question": "Does the student learn more from a fine-tuned teacher?",
            "grid": {"distill.teacher": ["baseline", "finetuned"]},
        },
        "qwen2": {"title": "A closer pair", "set": {"distill.pair": "qwen2"}},
        "loss": {"title": "Loss", "grid": {"distill.loss": ["forward_kl", "reverse_kl"]}},
    },
    "pairs": PAIRS,
}
RUNNING = {
    "title": "A study ten minutes into its run",
    "seeds": [0],
    "ablations": {
        "learning_rate": {
            "title": "Learning rate",
            "question": "Which learning rate suits distillation?",
            "grid": {"distill.lr": [1e-3, 3e-4, 1e-4]},
        },
        "kd_ratio": {
            "title": "KD ratio",
            "question": "How much of the loss should be the teacher's?",
            "grid": {"distill.kd_ratio": [0.5, 0.75, 1.0]},
        },
    },
}
LONG = "distilled_as_usual_but_for_a_weight_decay_that_is"
LARGE = {
    "title": "Two hundred cells",
    "evaluate": {"tasks": ["hellaswag", "truthfulqa_mc2", "commonsense_qa"]},
    "pairs": PAIRS,
    "ablations": {
        "learning_rate": {"title": "Learning rate", "grid": {"distill.lr": [3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5]}},
        "kd_ratio": {"title": "KD ratio", "grid": {"distill.kd_ratio": [0.1, 0.25, 0.5, 0.75, 0.9, 1.0]}},
        "loss": {"title": "Loss", "question": "Which loss?", "grid": {"distill.loss": LOSSES}},
        "temperature": {"title": "Temperature", "grid": {"distill.temperature": [0.5, 1.0, 2.0, 4.0, 8.0]}},
        "rank": {"title": "LoRA rank", "grid": {"distill.lora.rank": [8, 16, 32, 64, 128]}},
        "start": {
            "title": "Which teacher, which student",
            "grid": {"distill.teacher": ["baseline", "finetuned"], "distill.student": ["baseline", "finetuned"]},
        },
        "batch_size": {"title": "Batch size", "grid": {"distill.batch_size": [32, 64, 128, 256]}},
        "pair": {"title": "Which pair", "grid": {"distill.pair": ["llama", "qwen2"]}},
        "loss_and_temperature": {
            "title": "Loss and temperature",
            "grid": {"distill.loss": ["forward_kl", "reverse_kl"], "distill.temperature": [1.0, 2.0]},
        },
        "long_names": {
            "title": "Rows whose labels are sentences, as people write them who want to know next year what they meant",
            "rows": [
                {"label": f"{LONG}_{word}", "settings": {"distill.optimizer.weight_decay": decay}}
                for word, decay in (("none", 0.0), ("usual", 0.01), ("tenfold", 0.1))
            ],
        },
    },
}
FILES: dict[str, Mapping[str, Any]] = {
    "tutorial": {"extends": "kd_llama.yaml", "seeds": [0, 1, 2], "distill": {"teacher_cache": "none"}},
    "one_seed": {"extends": "kd_llama.yaml", "distill": {"teacher_cache": "none"}},
    "grid": BASE | GRID,
    "generation": BASE | GENERATION,
    "failures": BASE | FAILURES,
    "running": BASE | RUNNING,
    "large": BASE | LARGE,
}
SHARES = {"large": 1.0, "generation": 0.3}
"""Of each task's questions that are asked; half of them in the other studies."""
CUT = ("412 of 51,760 rows were cut to data.max_length", "3 rows without an answer were left out")


def shown(name: str, root: Path, *, share: float | None = None, seeds: Sequence[int] = ()) -> Plan:
    """-> the plan of a study, whose results lie under a root; `ablate --root ROOT report` opens it.

    `share`: of each task's questions that are asked, `seeds`: in place of the study's own, both to be quick.
    """
    plan = planned(name, root, seeds)
    skill = published_skill if name in ("tutorial", "one_seed") else skill_of
    results = MadeUp(plan, skill, SHARES.get(name, 0.5) if share is None else share)
    PUT.get(name, MadeUp.all)(results)
    return plan


def planned(name: str, root: Path, seeds: Sequence[int] = ()) -> Plan:
    """-> the plan, its models and rows fetched, as it is recorded under the root."""
    root.mkdir(parents=True, exist_ok=True)
    for file in ("kd_llama.yaml", "published.yaml"):
        shutil.copy(STUDIES / file, root)
    path = root / f"{name}.yaml"
    own = {"name": name, **FILES[name]} | ({"seeds": [*seeds]} if seeds else {})
    path.write_text(yaml.safe_dump(own, sort_keys=False))
    study = load(path)
    plan = offline_plan(study, root, row_notes=CUT if name == "failures" else ())
    project = Project(study, plan.store, path.resolve())
    project.record(pins_of(project.rows), plan)
    return project.plan(is_online=False)


def _put_failures(results: MadeUp) -> None:
    """One of each sort: the page must say all of them."""
    plan = results.plan
    too_fast = trainings(plan, "lr=0.01")
    broken, unasked = trainings(plan, "lr=0.001")[1], trainings(plan, "reverse_kl")[2]
    qwen_teacher = next(
        cell for cell in plan.cells if cell.row.setting.pair == "qwen2" and cell.row.model == "teacher/finetuned"
    )
    never = trainings(plan, "reverse_kl")[1]
    assert qwen_teacher.trained
    scored = next(cell.evaluate for cell in plan.cells if cell.trained and cell.trained.key == unasked.key)
    left = {stage.key for stage in (*too_fast, broken, qwen_teacher.trained, never, scored)}
    results.all(but=lambda stage: stage.key in left)
    for number, stage in enumerate(too_fast):
        results.commit(stage, nan_from=61 + 7 * number)
    results.fail(broken, "oom", "CUDA out of memory. Tried to allocate 2.31 GiB at step 133", at=133)
    results.fail(
        qwen_teacher.trained, "error", "ValueError: the chat template of Qwen/Qwen2-1.5B-Instruct <b>lacks</b>"
    )
    results.fail(scored, "nospace", "No space left on device")
    damaged = next(cell for cell in plan.cells if cell.row.ablation == "teacher" and cell.seed == 2)
    path = plan.store.folder(damaged.evaluate) / "out" / "results.json"
    path.write_bytes(path.read_bytes().replace(b"0.", b"0.9", 1))


def _put_running(results: MadeUp) -> None:
    """The references of the baseline are scored; two trainings run, one was stopped, the rest has not begun."""
    done = {
        cell.evaluate.key for cell in results.plan.cells if cell.row.model in ("teacher/baseline", "student/baseline")
    }
    tuned = next(cell.trained for cell in results.plan.cells if cell.row.model == "teacher/finetuned")
    assert tuned
    wanted = done | {tuned.key}
    results.all(but=lambda stage: stage.key not in wanted)
    first, second, third, *_ = dict.fromkeys(trainings(results.plan, ""))
    results.run(first, 120, saved=100)
    results.run(second, 61)
    results.run(third, 210, saved=200, is_live=False)


def trainings(plan: Plan, part: str) -> list[Stage]:
    """-> the distillations of rows whose name has this in it, by row and seed."""
    return [
        cell.trained for cell in plan.cells if cell.row.model == "distill" and part in cell.row.name and cell.trained
    ]


PUT: dict[str, Callable[[MadeUp], None]] = {"failures": _put_failures, "running": _put_running}
