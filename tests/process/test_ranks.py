"""A stage of several processes, one a card (gloo on a CPU): the result of one, and no process left waiting."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_models as tiny
from support.toys import ordered, ours, wait_for
from torch import Tensor

from ablate.core.errors import StageError
from ablate.core.failures import Ending
from ablate.core.values import RUNTIME, Cards, Frozen
from ablate.data import answer_groups
from ablate.evaluation.forest_scorer import ForestScorer
from ablate.evaluation.trees import Request, build_forest
from ablate.execution import attempts, supervisor
from ablate.execution.rank_processes import Rank, RankProcesses, Verdict
from ablate.stages.sharing import shared
from ablate.store.attempt import Attempt
from ablate.store.checkpoints import Checkpoints, ReadCheckpoints
from ablate.store.job import Job, UnwrittenMetrics, read_metrics
from ablate.store.kind import KINDS, Kind
from ablate.store.stage import Stage
from ablate.study.training_recipes import Distill
from ablate.training import adapters, capture_plan, files, ranks, trainable
from ablate.training.decode_loop import Writer
from ablate.training.features import make_features
from ablate.training.holdout import holdout_losses
from ablate.training.loss import CLASS_LOSS, objective, own_objective
from ablate.training.model_parts import ModelParts, split_model
from ablate.training.offload import can_wait
from ablate.training.on_policy import Writing
from ablate.training.projections import WithProjections
from ablate.training.sharding import shard
from ablate.training.shared_step import accumulate_shared
from ablate.training.teacher_capture import capture_teacher
from ablate.training.train import train
from ablate.training.training import Training

SEED = 20261201
ROWS = tiny.random_rows([random.Random(SEED + row).randint(2, 20) for row in range(24)])
ASKED = tiny.random_rows([random.Random(SEED + row).randint(5, 14) for row in range(24)], [3] * 24)
HELD_OUT = tiny.random_rows([8, 9, 14, 5, 11], [3] * 5)
LORA = {"rank": 4, "alpha": 8.0, "target_modules": list(tiny.targets("llama")), "dropout": 0.2}
EACH = {"batch_size": 6, "max_steps": 3, "warmup_steps": 1, "lr": 1e-3, "micro_batch_tokens": 40}
RESULT = "result.pt"
FORK_S = 20.0
TRAININGS: dict[str, dict[str, Any]] = {
    "distilled": {"lora": LORA},
    "distilled, few rows": {"lora": LORA, "batch_size": 3},
    "everything": {"lora": None},
    "sharded": {"lora": LORA, "gradient_checkpointing": True},
    "sharded, few rows": {"lora": LORA | {"dropout": 0.0}, "batch_size": 3},
    "in twelve steps": {"lora": LORA, "max_steps": 12, "checkpoint_every_s": 1e-9},
    "compared in hidden states": {"lora": LORA, "features": {"name": "mse", "projection": "trained"}},
    "on its own answers": {
        "lora": LORA,
        "student_fraction": 0.5,
        "sampling": {"max_new_tokens": 4},
        "replay": {"reuse": 2, "adaptive": {"every": 2, "step": 0.3}},
    },
}

SHARDED = ("sharded", "sharded, few rows")
"""Each rank has a part of each layer."""
SHARED = [name for name in TRAININGS if name != "in twelve steps"]

# in processes of their own


def training_of(name: str, sharing: ranks.Ranks) -> Training:
    recipe = Distill.model_validate(EACH | TRAININGS[name])
    student, teacher = tiny.make("llama", 1), tiny.make("llama", 2).requires_grad_(False)
    weights = trainable.make_trainable(student, recipe, 3, adapters.Origin())
    for model in (student, teacher) if name in SHARDED and sharing.size > 1 else ():
        shard(model, "cpu", sharing)
    parts, teacher = split_model(student, tiny.VOCABULARY), split_model(teacher, tiny.VOCABULARY)
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
    for name in SHARED:
        job, sharing.is_in_step = job_of(folder / name, rank), False
        training = training_of(name, sharing)
        sums = accumulate_shared(sharing, training, training.rows_of(1), 40, "cpu")
        grads = {key: weight.grad.double() for key, weight in training.trainable.weights.items()}
        losses = [float(part) for part in sums.data[:3]] + [float(sums.features)]
        train(job, training)
        if name in SHARDED and rank.num > 1:
            layer = training.student.model.model.layers[0].mlp.gate_proj
            assert layer.weight.to_local().numel() == layer.weight.numel() / rank.num
            assert not can_wait(training.teacher.model)
        losses_after = holdout_losses(training.student, HELD_OUT, 16, "cpu", None, None, sharing)
        if rank.rank == 0:
            weights = {key: weight.detach().double() for key, weight in training.trainable.weights.items()}
            torch.save(
                {"losses": losses, "grads": grads, "weights": weights, "holdout": losses_after}, job.out / RESULT
            )
    sharing.is_in_step = False
    ask(folder, rank, sharing)
    sharing.gather(None)


def ask(folder: Path, rank: Rank, sharing: ranks.Ranks) -> None:
    """A teacher's outputs in shards of few rows, and scores of requests in micro-batches of few tokens."""
    job = job_of(folder / "captured", rank)
    teacher = capture(job)
    requests = [Request(str(n % 7), (1, 2, 3, n % 7, n), (4, n)) for n in range(20)]
    scorer, answers = ForestScorer(teacher, 8, "cpu"), {}
    for responses in scorer.responses(build_forest(requests), [one.continuation for one in requests], ranks=sharing):
        answers |= responses
    if rank.rank == 0:
        (job.out / "responses.json").write_text(json.dumps([answers[number] for number in range(20)]))


def capture(job: Job) -> ModelParts:
    """-> the teacher that was asked."""
    capture_plan.SHARD_ROWS = 4
    teacher = split_model(tiny.make("llama", 2).requires_grad_(False), tiny.VOCABULARY)
    splits: Any = {"train": ROWS, "holdout": HELD_OUT}
    read: Any = {part: range(len(rows)) for part, rows in splits.items()}
    capture_teacher(job, capture_plan.CapturePlan(("teacher",), "float32", teacher, None, splits, read))
    return teacher


def job_of(folder: Path, rank: Rank) -> Job:
    job = replace(tiny.job(folder), rank=rank.rank, num_ranks=rank.num, meeting=rank.meeting)
    if rank.rank == 0:
        return job
    return replace(job, metrics=UnwrittenMetrics(job.metrics.path), checkpoints=ReadCheckpoints(job.checkpoints.folder))


def live(folder: Path, num: int) -> None:
    others, word = RankProcesses(num), Verdict(os.open(os.devnull, os.O_WRONLY))
    rank = others.fork(word)
    others.watch(lambda ending: os._exit(print(ending) or 1))
    work(folder, rank)
    word.end(Ending("ok", ""))


# a stage whose ranks fail


class FailingSettings(Frozen):
    fault: Annotated[Literal["none", "killed", "killed beside a fork", "raises", "out of memory"], RUNTIME] = "none"
    rank: Annotated[int, RUNTIME] = 1
    """That fails, in its third step."""
    step_s: Annotated[float, RUNTIME] = 0.0
    cards: Annotated[Cards, RUNTIME] = 2


class FailingTraining(Kind[FailingSettings]):
    """Trains twelve steps, in some of which a rank fails."""

    Settings = FailingSettings

    @shared
    def run(self, job: Job) -> None:
        torch.set_num_threads(1)
        training = training_of("in twelve steps", ranks.ranks_of(job))
        if job.rank == job.settings.rank:
            training.trainable.seed_dropout = self._failing(job, training.trainable.seed_dropout)
        train(job, training)
        if job.is_first:
            training.trainable.save(job.out)

    def _failing(self, job: Job, seed_dropout: Callable[..., None]) -> Callable[..., None]:
        """In the middle of a step, before a forward pass."""

        def fail_or_go_on(seed: int, step: int, rows: Sequence[int], *more: Any) -> None:
            time.sleep(job.settings.step_s)
            match job.settings.fault if step >= 3 else "none":
                case "killed" | "killed beside a fork" as fault:
                    if fault != "killed" and os.fork() == 0:
                        time.sleep(FORK_S)
                        os._exit(0)
                    os.kill(os.getpid(), signal.SIGKILL)
                case "raises":
                    raise StageError("a rank cannot go on")
                case "out of memory" if len(rows) > 1:
                    raise torch.OutOfMemoryError
            seed_dropout(seed, step, rows, *more)

        return fail_or_go_on

    def cards(self, settings: FailingSettings) -> Cards:
        return settings.cards


# a capture whose second rank is long at writing


class CaptureSettings(Frozen):
    write_s: Annotated[float, RUNTIME] = 0.0
    """The second rank's half of a shard has its final name for so long."""


class SlowCapture(Kind[CaptureSettings]):
    """Shards of few rows."""

    Settings = CaptureSettings

    @shared
    def run(self, job: Job) -> None:
        torch.set_num_threads(1)
        save, write_s = files.save, job.settings.write_s

        def save_slowly(tensors: Any, path: Path, *more: Any) -> None:
            if job.rank == 1 and path.parent == job.out:
                path.write_bytes(b"half a shard")
                time.sleep(write_s)
            save(tensors, path, *more)

        files.save = save_slowly
        capture(job)

    def cards(self, settings: CaptureSettings) -> Cards:
        return 2


# the server, whose forks have imported everything


def serve(folder: Path) -> None:
    """Forks a worker for 1, 2 and 4 ranks each, one after the other; then a supervisor for each line of stdin."""
    for num in (1, 2, 4):
        if os.fork() == 0:
            live(folder / str(num), num)
        assert os.wait()[1] == 0
    print("ready", flush=True)
    KINDS.register("failing_training")(FailingTraining())
    KINDS.register("slow_capture")(SlowCapture())
    for line in sys.stdin:
        order = json.loads(line)
        root, kind = Path(order.pop("root")), order.pop("kind")
        attempt = ordered(root, Stage(kind, 1, KINDS[kind].Settings(**order), {}))
        if os.fork() == 0:
            os.setsid()
            supervisor.work_on(attempt)
            os._exit(0)
        print(attempt.path, flush=True)


# the tests


class Server(NamedTuple):
    process: "subprocess.Popen[str]"
    folder: Path

    def attempt(self, root: Path, kind: str = "failing_training", **settings: Any) -> Attempt:
        """A stage under way in several processes."""
        self.process.stdin.write(json.dumps({"root": str(root), "kind": kind, **settings}) + "\n")
        self.process.stdin.flush()
        return Attempt(Path(self.process.stdout.readline().strip()))

    def ended(self, root: Path, kind: str = "failing_training", **settings: Any) -> Attempt:
        attempt = self.attempt(root, kind, **settings)
        wait_for(lambda: attempt.exit)
        return attempt


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder, pipe = tmp_path_factory.mktemp("ranks"), subprocess.PIPE
    with subprocess.Popen([sys.executable, __file__, str(folder)], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        yield Server(process, folder)
        process.stdin.close()


@pytest.fixture
def folder(server) -> Path:
    return server.folder


def distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """-> of all the tensors together, relative."""
    assert ours.keys() == theirs.keys()
    there = torch.cat([value.flatten() for value in theirs.values()])
    return float((torch.cat([ours[name].flatten() for name in theirs]) - there).norm() / there.norm())


@pytest.mark.parametrize("num", [2, 4])
@pytest.mark.parametrize("name", SHARED)
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


@pytest.mark.parametrize("num", [2, 4])
def test_what_several_ranks_ask_a_model_is_to_the_last_byte_what_one_asks(folder, num):
    alone, shared = (folder / str(size) / "captured/out" for size in (1, num))
    names = sorted(path.name for path in alone.iterdir())
    assert sum(name.startswith("train-") for name in names) == 6
    assert [(shared / name).read_bytes() for name in names] == [(alone / name).read_bytes() for name in names]
    assert sorted(path.name for path in shared.iterdir()) == names


@given(st.lists(st.integers(2, 400), min_size=1, max_size=20), st.integers(1, 8))
def test_every_row_goes_to_one_rank_and_no_rank_has_a_row_more_than_it_needs(lengths, size):
    parts = ranks.shares(tiny.random_rows(lengths), range(len(lengths)), size)
    assert sorted(index for part in parts for index in part) == list(range(len(lengths)))
    num_tokens = [sum(lengths[index] for index in part) for part in parts]
    assert max(num_tokens) - min(num_tokens) <= max(lengths)


def curve(attempt: Attempt) -> list[dict[str, Any]]:
    """-> of the stage, once committed."""
    (committed,) = (attempt.path.parents[3] / "runs/stages").iterdir()
    assert attempt.exit["failure"] == "ok", attempt.log.read_text()
    timed = ("seconds", "peak_memory")
    return [
        {name: record[name] for name in record if name not in timed}
        for record in read_metrics(committed / "metrics.jsonl")
    ]


@pytest.fixture(scope="module")
def undisturbed(server, tmp_path_factory) -> list[dict[str, Any]]:
    return curve(server.ended(tmp_path_factory.mktemp("undisturbed")))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_all_at_once_and_the_next_attempt_goes_on_to_the_same_curve(
    server, tmp_path, undisturbed, rank
):
    killed = server.ended(tmp_path, fault="killed", rank=rank)
    assert killed.exit["failure"] == "killed"
    assert "killed by SIGKILL" in killed.exit["message"]
    wait_for(lambda: not ours(tmp_path))
    assert curve(server.ended(tmp_path)) == undisturbed
    assert "goes on from step" in Attempt(killed.path.with_name("2")).log.read_text()


def test_a_rank_that_is_killed_is_heard_of_though_a_fork_of_it_holds_its_pipe_open(server, tmp_path):
    begun = time.monotonic()
    killed = server.ended(tmp_path, fault="killed beside a fork")
    assert killed.exit["failure"] == "killed"
    assert time.monotonic() - begun < FORK_S
    wait_for(lambda: not ours(tmp_path))


def test_a_capture_that_is_stopped_keeps_no_shard_that_another_rank_has_half_written(server, folder, tmp_path):
    stopped = server.attempt(tmp_path, "slow_capture", write_s=1.0)
    wait_for(lambda: (stopped.out / "train-00000.safetensors").is_file())
    attempts.ask_to_stop(stopped, is_now=False)
    wait_for(lambda: stopped.exit)
    assert stopped.exit["failure"] == "cancelled", stopped.log.read_text()
    whole = folder / "1/captured/out"
    _, kept = Checkpoints(stopped.checkpoints).latest()
    names = [path.name for path in kept.glob("*.safetensors")]
    assert "train-00001.safetensors" in names
    assert [(kept / name).read_bytes() for name in names] == [(whole / name).read_bytes() for name in names]
    assert server.ended(tmp_path, "slow_capture").exit["failure"] == "ok"
    (committed,) = (tmp_path / "runs/stages").iterdir()
    for path in whole.glob("*.safetensors"):
        assert (committed / "out" / path.name).read_bytes() == path.read_bytes()


def test_what_one_rank_cannot_do_is_told_as_the_cause_and_no_other_waits_for_it(server, tmp_path):
    failed = server.ended(tmp_path, fault="raises")
    assert failed.exit["message"] == "a rank cannot go on"
    wait_for(lambda: not ours(tmp_path))


def test_out_of_memory_on_one_rank_halves_the_micro_batches_of_all(server, tmp_path, undisturbed):
    losses = [record["loss"] for record in curve(server.ended(tmp_path, fault="out of memory"))]
    assert losses == pytest.approx([record["loss"] for record in undisturbed], rel=1e-6)
    (committed,) = (tmp_path / "runs/stages").iterdir()
    change, *_ = json.loads((committed / "stage.json").read_text())["provenance"]["notes"]["out of memory"]
    assert change.startswith("step 3: micro-batches of ")


def test_ranks_that_are_asked_to_stop_save_one_step_and_one_process_goes_on_from_it(server, tmp_path, undisturbed):
    stopped = server.attempt(tmp_path, step_s=0.05)
    wait_for(lambda: stopped.metrics.is_file() and len(list(read_metrics(stopped.metrics))) > 2)
    attempts.ask_to_stop(stopped, is_now=False)
    wait_for(lambda: stopped.exit)
    assert stopped.exit["failure"] == "cancelled"
    assert "goes on from the last checkpoint" in stopped.exit["message"]
    num_done = len(list(read_metrics(stopped.metrics)))
    assert Checkpoints(stopped.checkpoints).latest()[0] == num_done < 12
    alone = curve(server.ended(tmp_path, cards=1))
    assert alone[:num_done] == undisturbed[:num_done]
    assert [record["loss"] for record in alone] == pytest.approx([record["loss"] for record in undisturbed], rel=1e-6)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
