"""A training killed again and again, at any moment and inside every write, ends bit for bit as if nothing had been."""

import functools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import pytest
import torch
from support import tiny_models as tiny

from ablate.data import answer_groups
from ablate.store.checkpoints import Checkpoints
from ablate.store.job import Job, MetricsLog, read_metrics
from ablate.study.training_recipes import Distill
from ablate.training import adapters, trainable
from ablate.training.decode_loop import Writer
from ablate.training.features import make_features
from ablate.training.loss import CLASS_LOSS, objective, own_objective
from ablate.training.model_parts import split_model
from ablate.training.on_policy import Writing
from ablate.training.projections import WithProjections
from ablate.training.train import train
from ablate.training.training import Training

SEED = 20261125
ROWS = tiny.random_rows([random.Random(SEED + row).randint(2, 20) for row in range(48)])
ASKED = tiny.random_rows([random.Random(SEED + row).randint(5, 14) for row in range(32)], [3] * 32)
HELD_OUT = tiny.random_rows([8, 9], [3, 3])
LORA = {"rank": 4, "alpha": 8.0, "target_modules": list(tiny.targets("llama")), "dropout": 0.2}
EACH_STEP = {"batch_size": 4, "warmup_steps": 2, "lr": 1e-3, "micro_batch_tokens": 40, "checkpoint_every_s": 1e-9}
TRAININGS: dict[str, dict[str, Any]] = {
    "distilled": {"lora": LORA},
    "distilled in two epochs": {"lora": LORA, "epochs": 2, "batch_size": 8, "checkpoint_every_s": 0.03},
    "everything in bfloat16": {"lora": None},
    "compared in hidden states": {"lora": LORA, "features": {"name": "mse", "projection": "trained"}},
    "long": {"lora": LORA, "epochs": 12},
    "on its own answers": {
        "lora": LORA,
        "max_steps": 8,
        "student_fraction": 0.5,
        "sampling": {"max_new_tokens": 4},
        "replay": {"reuse": 2, "adaptive": {"every": 2, "step": 0.3}},
    },
}
WRITING = frozenset({"write", "flush", "fsync", "rename", "mkdir", "rmdir", "unlink", "link", "serialize_file"})
"""The functions in C by which files and folders are made, filled, made durable and removed."""
WRITES_OF_TWO_SAVES = 56
"""The second one, where there was a checkpoint before, removes the oldest."""


@functools.cache
def training_of(name: str) -> Training:
    recipe = Distill.model_validate(EACH_STEP | TRAININGS[name])
    is_whole = recipe.lora is None
    student = tiny.make("llama", 1, torch.bfloat16 if is_whole else torch.float32)
    weights = trainable.make_trainable(student, recipe, 3, adapters.Origin())
    parts, teacher = split_model(student, tiny.VOCABULARY), split_model(tiny.make("llama", 2), tiny.VOCABULARY)
    compared = make_features(recipe.features, teacher, parts, 3) if recipe.features else None
    training = Training(
        recipe=recipe,
        seed=3,
        rows=ASKED if recipe.writes_in_training else ROWS,
        student=parts,
        trainable=WithProjections(weights, compared.trained) if compared else weights,
        objective=CLASS_LOSS if is_whole else objective(recipe),
        own_objective=own_objective(recipe),
        teacher=None if is_whole else teacher,
        features=compared,
        holdout=HELD_OUT,
    )
    return _writing(training) if recipe.writes_in_training else training


@pytest.fixture(autouse=True)
def _groups_of_others(monkeypatch):
    """What `_writing` sets is as before once a test is over."""
    monkeypatch.setattr(answer_groups, "GROUP_SIZE", answer_groups.GROUP_SIZE)


def _writing(training: Training) -> Training:
    """-> a training whose student writes, one answer after the other."""
    answer_groups.GROUP_SIZE = 1
    writer, recipe = Writer(training.student, frozenset({1, 2})), training.recipe
    assert isinstance(recipe, Distill)
    return replace(training, writing=Writing(recipe, training.seed, training.num_steps, writer, str))


# how a process dies


Unit: TypeAlias = Literal["event", "write", "byte"]


@dataclass(frozen=True)
class Death:
    """By SIGKILL; in the middle of a write by SIGXFSZ, which leaves as little to say."""

    step: int
    """When the first record from this step on is about to be written; 0: when the process starts."""
    unit: Unit
    """Calls and returns of any function; calls of those that write; the length that no file can exceed."""
    after: int

    def arm(self) -> None:
        if self.unit == "byte":
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.after, resource.RLIM_INFINITY))
        else:
            sys.setprofile(self._countdown())

    def _countdown(self) -> Callable[[Any, str, Any], None]:
        left = self.after

        def count(_: object, event: str, what: Any) -> None:
            nonlocal left
            if self.unit == "write" and not (event == "c_call" and what.__name__ in WRITING):
                return
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

        return count


class DyingLog(MetricsLog):
    def __init__(self, path: Path, death: Death) -> None:
        super().__init__(path)
        self.deaths = [death] if death.step else []

    def append(self, **record: Any) -> None:
        if self.deaths and record["step"] >= self.deaths[0].step:
            self.deaths.pop().arm()
        super().append(**record)


# one attempt, in a process of its own


def work(name: str, folder: str, number: int, death: dict[str, Any] | None) -> None:
    dies = Death(**death) if death else None
    if dies and dies.step == 0:
        dies.arm()
    job = _job(Path(folder), number)
    if dies:
        job.metrics = DyingLog(job.metrics.path, dies)
    training = training_of(name)
    train(job, training)
    training.trainable.save(job.out)


def _job(folder: Path, number: int) -> Job:
    """-> of a new attempt, which goes on from the furthest checkpoint of the others, as a worker does."""
    job = tiny.job(folder / str(number))
    for earlier in reversed(range(number)):
        others = checkpoints(folder, earlier)
        if others.latest():
            job.checkpoints.adopt(others)
            break
    return job


def checkpoints(folder: Path, number: int) -> Checkpoints:
    return Checkpoints(folder / str(number) / "checkpoints")


def serve() -> None:
    """Forks a process for every line of stdin. It makes no gradient itself: no thread of torch's outlives a fork."""
    for line in sys.stdin:
        order = json.loads(line)
        training_of(order["name"])
        child = os.fork()
        if child == 0:
            _live(order)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _live(order: dict[str, Any]) -> None:
    try:
        work(**order)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


# the tests


class Forks:
    """Runs attempts at a training in a folder, one after the other."""

    def __init__(self, server: "subprocess.Popen[str]", name: str, folder: Path) -> None:
        self.server = server
        self.name = name
        self.folder = folder
        self.num = 0

    def attempt(self, death: Death | None = None) -> bool:
        """-> whether it died."""
        assert self.server.stdin
        assert self.server.stdout
        request = {"name": self.name, "folder": str(self.folder), "number": self.num}
        self.server.stdin.write(json.dumps(request | {"death": asdict(death) if death else None}) + "\n")
        self.server.stdin.flush()
        code = int(self.server.stdout.readline())
        print(f"{self.name}, attempt {self.num}: {death} -> {code}")
        assert code in (0, -signal.SIGKILL, -signal.SIGXFSZ)
        self.num += 1
        return code != 0

    def kill(self, death: Death) -> None:
        """Where a training outlives its death, it dies earlier."""
        while not self.attempt(death):
            death = replace(death, after=death.after // 2)


class Result(NamedTuple):
    curve: list[dict[str, Any]]
    """But for what a clock or the memory says."""
    files: dict[str, bytes]


def end(forks: Forks) -> Result:
    """-> what a last attempt, left alone, ends in."""
    assert not forks.attempt()
    last = forks.folder / str(forks.num - 1)
    curve = list(read_metrics(last / "metrics.jsonl"))
    for record in curve:
        for name in ("seconds", "peak_memory", "written_tokens_s"):
            record.pop(name, None)
    return Result(curve, {path.name: path.read_bytes() for path in sorted((last / "out").iterdir())})


@pytest.fixture(scope="module")
def server() -> Iterator["subprocess.Popen[str]"]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, text=True) as process:
        yield process


def deaths(name: str) -> list[Death]:
    """-> at random moments all along, twice on the way to the first step, and in the last step, its checkpoint made."""
    dice = random.Random(f"{SEED}/{name}")
    total = training_of(name).num_steps
    steps = sorted(dice.choices(range(1, total), k=14))
    steps = [*steps[:5], 0, *steps[5:10], 0, *steps[10:]]
    last: list[tuple[Unit, int]] = [("event", 0), ("write", 1), ("event", 1500), ("byte", 3000), ("write", 2)]
    times = 4 if training_of(name).writing else 1
    return [_at_random(dice, step, times) for step in steps] + [Death(total, unit, after) for unit, after in last]


def _at_random(dice: random.Random, step: int, times: int) -> Death:
    """`times`: how much longer a step is where the student writes answers in it."""
    unit: Unit = dice.choice(["event", "event", "write", "byte"])
    within_a_step = {"event": 17_000 * times, "write": 27 * times, "byte": 14_000}
    return Death(step, unit, dice.randrange(within_a_step[unit]))


NAMES = [name for name in TRAININGS if name != "long"]


@pytest.mark.parametrize("name", NAMES)
def test_a_training_killed_twenty_times_ends_in_the_same_curve_and_weights(server, tmp_path, name):
    undisturbed = end(Forks(server, name, tmp_path / "undisturbed"))
    forks = Forks(server, name, tmp_path / "killed")
    planned = deaths(name)
    assert len(planned) > 20
    for death in planned:
        forks.kill(death)
    assert end(forks) == undisturbed
    kept = [path.name for number in range(forks.num) for _, path in checkpoints(forks.folder, number).steps()]
    assert any("." in name for name in kept) == (name == "on its own answers")  # within a step


def test_a_kill_at_any_write_of_a_checkpoint_costs_one_step_at_most(server, tmp_path):
    undisturbed = end(Forks(server, "long", tmp_path / "undisturbed"))
    forks = Forks(server, "long", tmp_path / "killed")
    num_torn = reached = 0
    for after in range(WRITES_OF_TWO_SAVES):
        forks.kill(Death(1, "write", after))
        kept = checkpoints(forks.folder, forks.num - 1)
        num_recorded = len(list(read_metrics(kept.folder.parent / "metrics.jsonl")))
        before, (reached, _) = reached, kept.latest() or (0, None)
        assert reached >= max(before, num_recorded - 1)
        num_torn += any(not (step / "manifest.json").is_file() for step in kept.folder.iterdir())
    assert num_torn > WRITES_OF_TWO_SAVES / 2
    assert reached == before + 2  # the last one died after two whole saves
    assert end(forks) == undisturbed


if __name__ == "__main__":
    serve()
