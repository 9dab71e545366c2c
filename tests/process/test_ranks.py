"""A stage of several processes, one a card (gloo on a CPU): the result of one, and no process left waiting."""

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_models as tiny
from torch import Tensor

from ablate.core.failures import Ending
from ablate.data import answer_groups
from ablate.execution.rank_processes import Rank, RankProcesses, Verdict
from ablate.store.checkpoints import ReadCheckpoints
from ablate.store.job import Job, UnwrittenMetrics, read_metrics
from ablate.study.training_recipes import Distill
from ablate.training import adapters, ranks, trainable
from ablate.training.decode_loop import Writer
from ablate.training.features import make_features
from ablate.training.holdout import holdout_losses
from ablate.training.loss import CLASS_LOSS, objective, own_objective
from ablate.training.model_parts import split_model
from ablate.training.on_policy import Writing
from ablate.training.projections import WithProjections
from ablate.training.shared_step import accumulate_shared
from ablate.training.train import train
from ablate.training.training import Training

SEED = 20261201
ROWS = tiny.random_rows([random.Random(SEED + row).randint(2, 20) for row in range(24)])
ASKED = tiny.random_rows([random.Random(SEED + row).randint(5, 14) for row in range(24)], [3] * 24)
HELD_OUT = tiny.random_rows([8, 9, 14, 5, 11], [3] * 5)
LORA = {"rank": 4, "alpha": 8.0, "target_modules": list(tiny.targets("llama")), "dropout": 0.2}
EACH = {"batch_size": 6, "max_steps": 3, "warmup_steps": 1, "lr": 1e-3, "micro_batch_tokens": 40}
RESULT = "result.pt"
TRAININGS: dict[str, dict[str, Any]] = {
    "distilled": {"lora": LORA},
    "distilled, few rows": {"lora": LORA, "batch_size": 3},
    "everything": {"lora": None},
    "compared in hidden states": {"lora": LORA, "features": {"name": "mse", "projection": "trained"}},
    "on its own answers": {
        "lora": LORA,
        "student_fraction": 0.5,
        "sampling": {"max_new_tokens": 4},
        "replay": {"reuse": 2, "adaptive": {"every": 2, "step": 0.3}},
    },
}


# in processes of their own


def training_of(name: str, sharing: ranks.Ranks) -> Training:
    recipe = Distill.model_validate(EACH | TRAININGS[name])
    student = tiny.make("llama", 1)
    weights = trainable.make_trainable(student, recipe, 3, adapters.Origin())
    parts, teacher = split_model(student, tiny.VOCABULARY), split_model(tiny.make("llama", 2), tiny.VOCABULARY)
    compared = make_features(recipe.features, teacher, parts, 3) if recipe.features else None
    training = Training(
        recipe=recipe,
        seed=3,
        rows=ASKED if recipe.writes_in_training else ROWS,
        student=parts,
        trainable=WithProjections(weights, compared.trained) if compared else weights,
        objective=CLASS_LOSS if recipe.lora is None else objective(recipe),
        own_objective=own_objective(recipe),
        teacher=None if recipe.lora is None else teacher,
        features=compared,
        holdout=HELD_OUT,
    )
    if not recipe.writes_in_training:
        return training
    answer_groups.GROUP_SIZE = 1
    writer = Writer(parts, frozenset({1, 2}), ranks=sharing)
    return replace(training, writing=Writing(recipe, training.seed, training.num_steps, writer, str))


def work(folder: Path, rank: Rank) -> None:
    """Every training, by one rank; the first leaves what came of it."""
    torch.set_num_threads(1)
    together = job_of(folder / "together", rank)
    sharing = ranks.join(together) if rank.num > 1 else ranks.ONE
    for name in TRAININGS:
        job = job_of(folder / name, rank)
        training = training_of(name, sharing)
        sums = accumulate_shared(sharing, training, training.rows_of(1), 40, "cpu")
        grads = {key: weight.grad.double() for key, weight in training.trainable.weights.items()}
        losses = [float(part) for part in sums.data[:3]] + [sums.features]
        train(job, training)
        losses_after = holdout_losses(training.student, HELD_OUT, 16, "cpu", None, None, sharing)
        if rank.rank == 0:
            weights = {key: weight.detach().double() for key, weight in training.trainable.weights.items()}
            torch.save(
                {"losses": losses, "grads": grads, "weights": weights, "holdout": losses_after}, job.out / RESULT
            )
    sharing.gather(None)


def job_of(folder: Path, rank: Rank) -> Job:
    job = replace(tiny.job(folder), rank=rank.rank, num_ranks=rank.num, meeting=rank.meeting)
    if rank.rank == 0:
        return job
    return replace(job, metrics=UnwrittenMetrics(job.metrics.path), checkpoints=ReadCheckpoints(job.checkpoints.folder))


def serve(folder: Path) -> None:
    """Forks a worker for 1, 2 and 4 ranks each, one after the other."""
    for num in (1, 2, 4):
        if os.fork() == 0:
            live(folder / str(num), num)
        assert os.wait()[1] == 0


def live(folder: Path, num: int) -> None:
    others, word = RankProcesses(num), Verdict(os.open(os.devnull, os.O_WRONLY))
    rank = others.fork(word)
    others.watch(lambda ending: os._exit(print(ending) or 1))
    work(folder, rank)
    os._exit(0) if rank.rank == 0 else word.end(Ending("ok", ""))


# the tests


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run([sys.executable, __file__, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """-> of all the tensors together, relative."""
    assert ours.keys() == theirs.keys()
    there = torch.cat([value.flatten() for value in theirs.values()])
    return float((torch.cat([ours[name].flatten() for name in theirs]) - there).norm() / there.norm())


@pytest.mark.parametrize("num", [2, 4])
@pytest.mark.parametrize("name", TRAININGS)
def test_several_ranks_come_to_the_losses_gradients_and_weights_of_one(folder, name, num):
    of_one, of_all = (torch.load(folder / str(size) / name / "out" / RESULT) for size in (1, num))
    assert of_all["losses"] == pytest.approx(of_one["losses"], rel=1e-6)
    assert distance(of_all["grads"], of_one["grads"]) < 1e-6
    assert distance(of_all["weights"], of_one["weights"]) < 1e-6
    assert of_all["holdout"] == pytest.approx(of_one["holdout"], rel=1e-6)
    curves = [list(read_metrics(folder / str(size) / name / "metrics.jsonl")) for size in (1, num)]
    assert [[record["tokens"], record["lr"]] for record in curves[1]] == [[r["tokens"], r["lr"]] for r in curves[0]]
    assert [record["loss"] for record in curves[1]] == pytest.approx([r["loss"] for r in curves[0]], rel=1e-6)


def test_the_first_rank_alone_writes(folder):
    alone, shared = (sorted(path.name for path in (folder / num).rglob("*")) for num in ("1", "4"))
    assert shared == alone


@given(st.lists(st.integers(2, 400), min_size=1, max_size=20), st.integers(1, 8))
def test_every_row_goes_to_one_rank_and_no_rank_has_a_row_more_than_it_needs(lengths, size):
    parts = ranks.shares(tiny.random_rows(lengths), range(len(lengths)), size)
    assert sorted(index for part in parts for index in part) == list(range(len(lengths)))
    num_tokens = [sum(lengths[index] for index in part) for part in parts]
    assert max(num_tokens) - min(num_tokens) <= max(lengths)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
