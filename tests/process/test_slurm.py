"""Studies of toys on a real Slurm, with what goes wrong on one; judged by counting here, outside the store."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.slurm import RealSlurm, real_slurm, shared_slurm
from support.slurm_toys import driver, stages_of
from support.toys import metrics_of, ours, value_of, wait_for

from ablate.execution.pilots.pilot_job import PilotJob
from ablate.execution.pilots.pilot_pool import place_of
from ablate.store.store import Store

pytestmark = pytest.mark.slow

LATE_S = 120.0
"""For a run of toys on a machine with other things to do."""


@dataclass
class Bench:
    """A root, a Slurm, and the drivers of one test."""

    root: Path
    slurm: RealSlurm
    settings: dict[str, str]
    drivers: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self, toys: list[dict[str, Any]], **options: Any) -> "subprocess.Popen[str]":
        self.drivers.append(driver(self.root, toys, self.settings, **options))
        return self.drivers[-1]

    def end(self, run: "subprocess.Popen[str]") -> tuple[int, str]:
        """-> exit code and what was printed."""
        out, _ = run.communicate(timeout=LATE_S)
        return run.returncode, out

    def require_done(self, run: "subprocess.Popen[str]", toys: list[dict[str, Any]]) -> str:
        """Every toy is committed with its one right value and its whole curve. -> what was printed."""
        code, out = self.end(run)
        assert code == 0, out
        for stage, settings, value in zip(stages_of(toys), toys, counted(toys), strict=True):
            assert value_of(self.root, stage) == value
            assert metrics_of(self.root, stage) == list(range(1, settings["steps"] + 1))
        return out

    def require_nothing_left(self) -> None:
        wait_for(lambda: not self.slurm.jobs(), 60)
        wait_for(lambda: not ours(self.root), 60)

    def num_attempts(self, toys: list[dict[str, Any]]) -> list[int]:
        """-> how often each was handed to a worker; a driver that claims a stage just after another hands out none."""
        folders = [Store(self.root).runs / "attempts" / stage.key12 for stage in stages_of(toys)]
        return [len(list(folder.glob("[0-9]*/attempt.json"))) for folder in folders]

    def jobs(self, *states: str, study: str = "toys") -> list[str]:
        """-> Slurm's jobs of a study of this test."""
        whose = family(self.root, study)
        return [job for job, comment in self.slurm.jobs(*states).items() if comment.startswith(whose)]

    def wait_for_checkpoints(self, num: int) -> None:
        pattern = "runs/attempts/*/*/checkpoints/step-*/manifest.json"
        wait_for(lambda: len({path.parts[-5] for path in self.root.glob(pattern)}) >= num, LATE_S)


def family(root: Path, study: str = "toys") -> str:
    """-> how the comments of a study's jobs begin."""
    return PilotJob(root / "runs/jobs" / study / "1").token.rpartition("-")[0]


def counted(toys: list[dict[str, Any]]) -> list[int]:
    """-> what toys count to, counted here."""
    values: list[int] = []
    for settings in toys:
        value = sum(values[number] for number in settings.get("needs", ())) + 1
        for step in range(1, settings["steps"] + 1):
            value = (value * 6_364_136_223_846_793_005 + settings["seed"] + step) % (2**61 - 1)
        values.append(value)
    return values


def toys_of(num: int, steps: int = 10, **settings: Any) -> list[dict[str, Any]]:
    return [{"steps": steps, "seed": seed, **settings} for seed in range(num)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    slurm = shared_slurm()
    root = tmp_path / "root"
    root.mkdir()
    it = Bench(root, slurm, {**os.environ, **slurm.variables})
    yield it
    if not any(run.poll() is None for run in it.drivers):
        it.require_nothing_left()
    for run in it.drivers:
        run.kill()
        run.communicate()
    slurm.clear()
    for left in ours(root):
        left.kill()


# runs that begin before the other tests, so that nobody waits for them


@dataclass
class Waiting:
    """A run whose job does not start, and what it prints."""

    run: "subprocess.Popen[str]"
    printed: Path


@pytest.fixture(scope="module", autouse=True)
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Waiting]:
    slurm, folder = shared_slurm(), tmp_path_factory.mktemp("waiting")
    slurm.kept += (family(folder),)
    printed = folder / "printed"
    with printed.open("w") as out:
        settings = {**os.environ, **slurm.variables}
        run = driver(folder, toys_of(1), settings, out=out, look_s=5.0, extra={"begin": "now+1hour"})
    yield Waiting(run, printed)
    slurm.kept = ()
    run.kill()
    run.wait()
    slurm.clear()


LONG = 400
"""Steps of 0.1 s: Slurm looks every half a minute for jobs whose time is nearly over."""


@pytest.fixture(scope="module", autouse=True)
def timed(tmp_path_factory: pytest.TempPathFactory, waiting: Waiting) -> Iterator[Bench]:
    """A run whose job is within the lead, of 120 s, of its time limit."""
    slurm = shared_slurm()
    bench = Bench(tmp_path_factory.mktemp("timed"), slurm, {**os.environ, **slurm.variables})
    run = bench.start(toys_of(1, steps=LONG, step_s=0.1), time="10m")
    try:
        bench.wait_for_checkpoints(1)
        (job,) = bench.jobs("RUNNING")
        slurm.ask("scontrol", "update", f"JobId={job}", "EndTime=now+110")
        slurm.kept += (family(bench.root),)
        yield bench
    finally:
        run.kill()
        run.wait()


@dataclass
class Wrapped:
    """Commands of Slurm's that are written down, and can be made to fail, by a file beside them."""

    folder: Path

    def begin(self, bench: Bench) -> None:
        self.folder.mkdir()
        for name in ("squeue", "sbatch", "scancel"):
            (self.folder / name).write_text(
                f"#!/bin/bash\ndate +%s.%N >> {self.folder}/{name}.calls\n"
                f"case $(cat {self.folder}/{name}.fault 2>/dev/null) in\n"
                "hang) exec sleep 600;; rubbish) head -c 3000 /dev/urandom; exit 0;; nothing) exit 0;;\n"
                "failing) echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1;;\n"
                f'lost) /usr/bin/{name} "$@" >/dev/null; echo "Socket timed out on send/recv operation" >&2; exit 1;;\n'
                f'esac\nexec /usr/bin/{name} "$@"\n'
            )
            (self.folder / name).chmod(0o755)
        bench.settings["PATH"] = f"{self.folder}:{bench.settings['PATH']}"

    def fail(self, name: str, how: str) -> None:
        (self.folder / f"{name}.fault").write_text(how)

    def calls(self, name: str) -> list[float]:
        path = self.folder / f"{name}.calls"
        return [float(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture
def wrapped(bench: Bench, tmp_path: Path) -> Wrapped:
    it = Wrapped(tmp_path / "bin")
    it.begin(bench)
    return it


# a run


def test_sixty_stages_share_twenty_jobs_and_the_daemon_is_asked_once_a_look(bench, wrapped):
    toys = toys_of(60, steps=3)
    begun_at = time.time()
    out = bench.require_done(bench.start(toys, max_jobs=20, look_s=1.0), toys)
    assert bench.num_attempts(toys) == [1] * 60, out
    assert 1 <= len(bench.jobs("COMPLETED", "CANCELLED")) <= 25
    num_looks = (time.time() - begun_at) / 1.0 + 2
    assert len(wrapped.calls("squeue")) <= num_looks
    assert len(wrapped.calls("sbatch")) <= num_looks / 2


def test_a_killed_drivers_jobs_go_on_and_the_next_driver_watches_them(bench):
    toys = toys_of(3, steps=60, step_s=0.1)
    first = bench.start(toys)
    bench.wait_for_checkpoints(3)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = set(bench.jobs("RUNNING"))
    bench.require_done(bench.start(toys), toys)
    assert bench.num_attempts(toys) == [1, 1, 1]
    wait_for(lambda: set(bench.jobs("COMPLETED", "CANCELLED")) == before, 60)  # not still completing


def test_a_cancelled_job_is_not_tried_again_in_this_run_and_the_same_command_goes_on(bench):
    toys = toys_of(2, steps=80, step_s=0.1)
    run = bench.start(toys)
    bench.wait_for_checkpoints(2)
    bench.slurm.ask("scancel", bench.jobs("RUNNING")[0])
    code, out = bench.end(run)
    assert code != 0, out
    assert "CANCELLED" in out
    assert sorted(bench.num_attempts(toys)) == [1, 1]
    bench.require_done(bench.start(toys), toys)
    assert sorted(bench.num_attempts(toys)) == [1, 2]


def test_before_its_time_is_over_a_job_saves_and_the_stage_goes_on_in_another(timed):
    toys = toys_of(1, steps=LONG, step_s=0.1)
    timed.require_done(timed.drivers[0], toys)
    assert timed.num_attempts(toys) == [2]
    (exit_,) = (path for path in timed.root.glob("runs/attempts/*/1/exit.json"))
    assert '"preempted"' in exit_.read_text()


def test_what_a_failed_node_was_at_is_tried_again_on_another(bench):
    toys = toys_of(2, steps=100, step_s=0.1)
    run = bench.start(toys)
    bench.wait_for_checkpoints(2)
    node = bench.slurm.node_of(bench.jobs("RUNNING")[0])
    bench.slurm.kill_node(node)
    bench.slurm.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    bench.require_done(run, toys)
    assert max(bench.num_attempts(toys)) == 2


def test_a_job_that_has_to_make_room_begins_anew_and_its_stage_goes_on(bench):
    toys = toys_of(2, steps=150, step_s=0.1)
    run = bench.start(toys, max_jobs=2)
    bench.wait_for_checkpoints(2)
    for _ in bench.slurm.nodes:
        bench.slurm.ask("sbatch", "-p", "urgent", "--exclusive", "--output=/dev/null", text="#!/bin/bash\nsleep 3\n")
    bench.require_done(run, toys)
    assert max(bench.num_attempts(toys)) >= 2


def test_two_studies_that_share_stages_make_each_once(bench):
    shared = toys_of(3, steps=40, step_s=0.1)
    one, other = ([*shared, {"steps": 10, "seed": seed, "needs": [0, 1]}] for seed in (50, 60))
    runs = [bench.start(one, study="toys", max_jobs=3), bench.start(other, study="others", max_jobs=3)]
    bench.require_done(runs[0], one)
    bench.require_done(runs[1], other)
    assert bench.num_attempts(shared) == [1, 1, 1]


# what is waited for, and what is not


def test_a_job_that_can_never_start_fails_at_once_in_slurms_words(bench):
    toys = toys_of(1)
    code, out = bench.end(bench.start(toys, partition="short", time="30m"))
    assert code != 0
    assert "Partition" in out
    assert not bench.jobs()


def test_a_job_that_the_cluster_refuses_is_told_in_slurms_words(bench):
    code, out = bench.end(bench.start(toys_of(1), partition="nowhere"))
    assert code != 0
    assert "nvalid partition" in out


# a cluster that does not answer


def test_nothing_is_lost_or_tried_twice_while_the_controller_is_down(bench):
    toys = toys_of(6, steps=80, step_s=0.1)
    run = bench.start(toys, max_jobs=3)
    bench.wait_for_checkpoints(3)
    bench.slurm.pause_controller()
    time.sleep(8)
    bench.slurm.resume_controller()
    bench.slurm.save_jobs()
    bench.slurm.kill_controller()
    time.sleep(6)
    bench.slurm.start_controller()
    bench.require_done(run, toys)
    assert bench.num_attempts(toys) == [1] * 6


def test_an_answer_that_is_late_or_wrong_or_none_says_nothing_of_any_job(bench, wrapped):
    toys = toys_of(6, steps=80, step_s=0.1)
    run = bench.start(toys, max_jobs=3, command_s=2)
    bench.wait_for_checkpoints(3)
    for fault in ("hang", "rubbish", "nothing", "failing"):
        wrapped.fail("squeue", fault)
        num_asked = len(wrapped.calls("squeue"))
        wait_for(lambda num_asked=num_asked: len(wrapped.calls("squeue")) >= num_asked + 2, 60)
    wrapped.fail("squeue", "")
    bench.require_done(run, toys)
    assert bench.num_attempts(toys) == [1] * 6


def test_a_submission_that_is_lost_in_words_alone_is_not_sent_again(bench, wrapped):
    wrapped.fail("sbatch", "lost")
    toys = toys_of(2)
    bench.require_done(bench.start(toys, max_jobs=2), toys)
    assert bench.num_attempts(toys) == [1, 1]
    assert len(wrapped.calls("sbatch")) == 1


# what a cluster keeps


def test_a_token_of_the_drivers_is_kept_nowhere(bench):
    canary = "canary-of-a-token-20"
    bench.settings |= {"HF_TOKEN": canary, "A_COPY": f"it is {canary}"}
    toys = toys_of(2, steps=30, step_s=0.1)
    run = bench.start(toys)
    bench.wait_for_checkpoints(1)
    texts = [bench.slurm.ask("scontrol", "show", "job", "-d"), bench.slurm.ask("squeue", "--json")]
    processes = [path for path in Path("/proc").glob("[0-9]*/environ") if _is_of_a_job(path, bench.slurm)]
    assert processes
    files = [path for top in (bench.root, bench.slurm.root) for path in top.rglob("*") if path.is_file()]
    for path in [*processes, *files]:
        texts.append(_text(path))
    bench.require_done(run, toys)
    assert not any(canary in text for text in texts)


def _is_of_a_job(environ: Path, slurm: RealSlurm) -> bool:
    text = _text(environ)
    return f"SLURM_CONF={slurm.conf}" in text and "SLURM_JOB_ID=" in text


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


# inside an allocation


def test_inside_an_allocation_pilots_are_steps_on_its_nodes(bench):
    toys = toys_of(6, steps=20, step_s=0.1)
    words = ["salloc", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2", "--gres=gpu:1", "--mem=1G"]
    run = bench.start(toys, kind="srun", within=words, device="cpu")
    bench.wait_for_checkpoints(2)
    steps = bench.slurm.ask("squeue", "--noheader", "--steps", "--format=%j %N").split()
    out = bench.require_done(run, toys)
    assert {"node0", "node1"} <= set(steps)
    assert bench.num_attempts(toys) == [1] * 6, out
    assert len(list(bench.root.glob("runs/jobs/toys/[0-9]*"))) == 2


# told in the end, since it takes a minute


def test_a_job_that_does_not_start_is_told_within_a_minute(waiting):
    wait_for(lambda: "1 queued" in waiting.printed.read_text() and "BeginTime" in waiting.printed.read_text(), 120)
    waiting.run.send_signal(signal.SIGTERM)
    assert waiting.run.wait(LATE_S) != 0
    shared_slurm().kept = ()
    wait_for(lambda: not shared_slurm().jobs(), 60)


# by hand


def require_second_tries_are_slurms(bench: Bench, toys: list[dict[str, Any]]) -> None:
    """Each first try that came to nothing was stopped by Slurm, which had taken its job back, as its own log says."""
    log = (bench.slurm.root / "slurmctld.log").read_text()
    requeued = set(re.findall(r"requeue JobId=([\d_]+)", log))
    earlier = [one for stage in stages_of(toys) for one in Store(bench.root).attempts(stage.key12)[:-1]]
    print(f"{len(earlier)} tried again, {log.count('requeue JobId=')} jobs requeued by Slurm")
    for attempt in earlier:
        job = place_of(attempt).job
        assert attempt.exit["failure"] == "preempted", attempt
        assert job.record(job.pilot)["cluster_id"] in requeued, attempt


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_five_hundred_stages_two_hundred_at_once(tmp_path):
    with real_slurm(cpus=256) as slurm:
        root = tmp_path / "root"
        root.mkdir()
        bench = Bench(root, slurm, {**os.environ, **slurm.variables})
        wrapped = Wrapped(tmp_path / "bin")
        wrapped.begin(bench)
        toys = toys_of(500, steps=2)
        begun_at = time.time()
        run = bench.start(toys, max_jobs=200, look_s=5.0, idle_s=60.0)
        out, _ = run.communicate(timeout=3000)
        seconds = time.time() - begun_at
        print(f"{seconds:.0f} s, {len(wrapped.calls('squeue'))} squeue, {len(wrapped.calls('sbatch'))} sbatch")
        assert run.returncode == 0, out
        require_second_tries_are_slurms(bench, toys)
        assert [value_of(root, stage) for stage in stages_of(toys)] == counted(toys)
        assert len(wrapped.calls("squeue")) <= seconds / 5 + 2
