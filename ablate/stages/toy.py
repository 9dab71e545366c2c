"""A stage kind that only counts: what tests and `ablate doctor` try the running of stages with, faults included."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from ablate.core import disk
from ablate.core.errors import Diverged, StageError
from ablate.core.values import IDENTITY, RUNTIME, Frozen, Int, Num
from ablate.store.job import Job
from ablate.store.kind import KINDS, Kind

Fault: TypeAlias = Literal[
    "none",
    "error",
    "crash",
    "network",
    "denied",
    "oom",
    "nospace",
    "diverge",
    "hang",
    "die",
    "exit",
    "empty",
    "litter",
    "crowd",
    "daemons",
]
CHECKPOINT_EVERY_S = 0.1
MODULUS = 2**61 - 1


class ToySettings(Frozen):
    """How far to count, and what goes wrong on the way."""

    steps: Annotated[Int, IDENTITY] = 10
    seed: Annotated[Int, IDENTITY] = 0
    step_s: Annotated[Num, RUNTIME] = 0.0
    fault: Annotated[Fault, RUNTIME] = "none"
    fault_step: Annotated[Int, RUNTIME] = 1
    faults: Annotated[str | None, RUNTIME] = None
    """A file outside runs/ that counts the faults so far; only the first `num_faults` happen."""
    num_faults: Annotated[Int, RUNTIME] = 1_000_000
    save_s: Annotated[Num, RUNTIME] = 0.0
    """How long a checkpoint takes."""
    print_bytes: Annotated[Int, RUNTIME] = 0
    """Printed before the first step, not all of it UTF-8."""


class Toy(Kind[ToySettings]):
    """Counts from the sum of its inputs' values; every step depends on all before it."""

    Settings = ToySettings

    def run(self, job: Job) -> None:
        settings: ToySettings = job.settings
        _print(settings.print_bytes)
        step, value = _start(job)
        saved_at = time.monotonic()
        while step < settings.steps:
            step += 1
            value = (value * 6_364_136_223_846_793_005 + settings.seed + step) % MODULUS
            job.metrics.append(step=step, value=value)
            job.progress(step, settings.steps, "steps", loss=1 / step)
            time.sleep(settings.step_s)
            if step == settings.fault_step and _is_due(settings):
                _fail(settings.fault, step)
            if job.is_stopping() or time.monotonic() - saved_at > CHECKPOINT_EVERY_S:
                if job.has_time_to_save:
                    _save(job, step, value)
                saved_at = time.monotonic()
                job.stop_if_asked()
        if settings.fault != "empty":
            disk.write_json(job.out / "result.json", {"value": value, "steps": step})

    def check(self, folder: Path) -> None:
        if disk.read_json(folder / "out/result.json") is None:
            raise StageError("the toy left no result")

    def glance(self, folder: Path) -> None:
        self.check(folder)


KINDS.register("toy")(Toy())


def _start(job: Job) -> tuple[int, int]:
    """-> step and value to go on from."""
    latest = job.checkpoints.latest()
    step = latest[0] if latest else 0
    if latest:
        disk.copy(latest[1] / "metrics.jsonl", job.metrics.path)
    job.metrics.cut_after(step)
    if latest:
        return step, json.loads((latest[1] / "state.json").read_text())["value"]
    return 0, sum(json.loads((folder / "out/result.json").read_text())["value"] for folder in job.inputs.values()) + 1


def _save(job: Job, step: int, value: int) -> None:
    def write(folder: Path) -> None:
        time.sleep(job.settings.save_s)
        disk.write_json(folder / "state.json", {"value": value})
        disk.copy(job.metrics.path, folder / "metrics.jsonl")

    job.checkpoints.save(step, write)


def _print(num_bytes: int) -> None:
    line = b"\xff\xfe not UTF-8 " * 64 + b"\n"
    for _ in range(num_bytes // len(line)):
        sys.stdout.buffer.write(line)
    sys.stdout.flush()


def _is_due(settings: ToySettings) -> bool:
    if settings.fault in ("none", "empty"):
        return False
    if settings.faults is None:
        return True
    with Path(settings.faults).open("a+") as file:
        file.write("fault\n")
        file.seek(0)
        return len(file.readlines()) <= settings.num_faults


def _fail(fault: Fault, step: int) -> None:
    with contextlib.suppress(KeyError):
        raise {
            "error": StageError(f"told to fail at step {step}"),
            "crash": ValueError(f"told to crash at step {step}"),
            "network": ConnectionError("told to find no network"),
            "denied": StageError("told to be denied", "denied"),
            "oom": MemoryError("told to run out of memory"),
            "nospace": OSError(28, "told to find no space"),
            "diverge": Diverged(step, float("nan")),
        }[fault]
    if fault == "litter":
        subprocess.Popen(["sleep", "3600"])
        return
    if fault == "crowd":
        _fork_on()
    if fault == "daemons":
        _leave_daemons()
        return
    if fault == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "exit":
        os._exit(0)
    time.sleep(3600)


def _fork_on() -> None:
    """As code that forks for ever; a machine that nobody guards is spared after some thousand."""
    for _ in range(10 * (os.cpu_count() or 1) + 1000):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)


def _leave_daemons() -> None:
    """Two processes that are made to outlive whoever ends this one's group or session; their pids go into the log."""
    program = subprocess.Popen(["sleep", "3600"], start_new_session=True, cwd="/")
    print("daemon", program.pid)
    ours, theirs = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if (pid := os.fork()) == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.chdir("/")
            time.sleep(3600)
        os.write(theirs, b"daemon %d" % pid)
        os._exit(0)
    print(os.read(ours, 100).decode())
    os.wait()
