"""An evaluation that is stopped or killed, at any moment, goes on where it was and ends with the same bytes."""

import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from support.asking import evaluated, evaluation_inputs, save_model

from ablate.core import disk
from ablate.core.errors import Interrupted
from ablate.evaluation import evaluation_run
from ablate.store.checkpoints import Checkpoints
from ablate.training import batches

TASKS = ("own_endings", "own_letters")
WRITING = frozenset({"fsync", "rename", "mkdir", "rmdir", "unlink", "link"})
"""The functions in C by which a checkpoint is made, made durable and removed."""


@pytest.fixture
def often(monkeypatch):
    """Every question is asked by itself, and kept."""
    monkeypatch.setattr(batches, "CPU_BUDGET", 1)
    monkeypatch.setattr(evaluation_run, "CHECKPOINT_EVERY_S", 0.0)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("inputs")
    return evaluation_inputs(root, save_model(root / "model"))


def files_of(folder):
    """-> name -> bytes of everything that an evaluation leaves."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()
    }


def after(number):
    """-> what says at the `number`-th time of asking that the worker is to stop."""
    asked = []

    def is_stopping():
        asked.append(1)
        return len(asked) >= number

    return is_stopping


def test_stopped_again_and_again_in_the_middle_of_a_task_it_leaves_the_same_bytes(tmp_path, inputs, often):
    evaluated(tmp_path / "whole", inputs, tasks=TASKS)
    for number in (6, 20, 10):  # of the questions of a task, 9 of each, two times of asking
        with pytest.raises(Interrupted):
            evaluated(tmp_path / "stage", inputs, tasks=TASKS, is_stopping=after(number))
    evaluated(tmp_path / "stage", inputs, tasks=TASKS)
    assert files_of(tmp_path / "stage") == files_of(tmp_path / "whole")


def test_what_was_answered_is_not_asked_again(tmp_path, inputs, often):
    with pytest.raises(Interrupted):
        evaluated(tmp_path / "stage", inputs, tasks=TASKS, is_stopping=after(9))
    checkpoints = Checkpoints(tmp_path / "stage" / "checkpoints")
    number, kept = checkpoints.latest()
    answers = json.loads((kept / "partial.json").read_text())
    assert 3 < len(answers) < 9 * 3
    forged = [[request, -1000.0 - request, greedy] for request, _, greedy in answers]
    checkpoints.save(number + 1, lambda folder: disk.write_json(folder / "partial.json", forged))
    evaluated(tmp_path / "stage", inputs, tasks=TASKS)
    lines = (tmp_path / "stage" / "out" / "samples" / "own_endings.jsonl").read_text().splitlines()
    log_likelihoods = [value for line in lines for value in json.loads(line)["loglikelihoods"]]
    assert {request: log_likelihoods[request] for request, *_ in answers} == {
        request: value for request, value, _ in forged
    }
    assert sum(value <= -1000 for value in log_likelihoods) == len(answers)


def test_answers_are_kept_from_time_to_time_only(tmp_path, inputs, monkeypatch):
    monkeypatch.setattr(batches, "CPU_BUDGET", 1)
    evaluated(tmp_path, inputs, tasks=TASKS)
    assert Checkpoints(tmp_path / "checkpoints").latest()[0] == len(TASKS)


# killed


def serve():
    """Forks a process for every line of stdin, which works as ordered until it is killed. No thread outlives a fork."""
    batches.CPU_BUDGET, evaluation_run.CHECKPOINT_EVERY_S = 1, 0.0
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            live(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def live(order):
    try:
        inputs = {name: Path(path) for name, path in order["inputs"].items()}
        sys.setprofile(countdown(order["after"]))
        evaluated(Path(order["folder"]), inputs, tasks=TASKS)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def countdown(left):
    """-> a profile function that kills its process just before the `left`-th write."""

    def count(_, event, what):
        nonlocal left
        if event == "c_call" and what.__name__ in WRITING:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return count


@pytest.fixture
def server():
    command = [sys.executable, "-c", "import test_evaluation_kills; test_evaluation_kills.serve()"]
    env = os.environ | {"JE_ARROW_MALLOC_CONF": "background_thread:false"}  # as executors have it
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent, env=env
    ) as process:

        def work(folder, inputs, writes):
            order = {"folder": str(folder), "inputs": {name: str(path) for name, path in inputs.items()}}
            print(json.dumps(order | {"after": writes}), file=process.stdin, flush=True)
            return int(process.stdout.readline())

        yield work
        process.stdin.close()


def test_killed_again_and_again_inside_its_writes_it_leaves_the_same_bytes(tmp_path, inputs, server):
    assert server(tmp_path / "whole", inputs, 0) == 0
    ends = [server(tmp_path / "stage", inputs, writes) for writes in (45, 72, 1, 99)]
    assert ends == [-signal.SIGKILL] * len(ends)
    assert server(tmp_path / "stage", inputs, 0) == 0
    assert files_of(tmp_path / "stage") == files_of(tmp_path / "whole")
