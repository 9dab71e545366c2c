"""A worker, whatever is done to it: one commit or none, one last word, nothing left behind."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.toys import TOYS, chain, drive, metrics_of, ordered, ours, toy, value_of, wait_for

from ablate.core import capped_log, disk, processes
from ablate.core.failures import FAILURES, Ending, ending_of
from ablate.execution import attempts, deaths, worker_process
from ablate.execution.executors.base import supervisor_of
from ablate.execution.executors.launch import ForkServer, start_fresh
from ablate.execution.workers import Workers
from ablate.machine import network
from ablate.machine.slots import Slot
from ablate.store.attempt import Attempt
from ablate.store.store import Store


def work(attempt: Attempt) -> dict:
    """Has a worker see an attempt through; -> its last word."""
    start_fresh(attempt).wait(30)
    assert attempt.exit is not None, attempt.log.read_text()
    return attempt.exit


def worker_of(supervisor: subprocess.Popen) -> psutil.Process:
    wait_for(lambda: psutil.Process(supervisor.pid).children())
    return psutil.Process(supervisor.pid).children()[0]


def is_counting(attempt: Attempt) -> bool:
    return attempt.metrics.is_file() and attempt.metrics.stat().st_size > 0


def test_a_stage_is_committed_with_its_settings_and_where_it_was_made(tmp_path):
    stage = toy(steps=3, seed=5)
    assert work(ordered(tmp_path, stage))["failure"] == "ok"
    record = disk.read_json(Store(tmp_path).folder(stage) / "stage.json")
    assert record["payload"] == stage.payload
    assert record["settings"] == stage.settings.model_dump(mode="json")
    fields = {"started", "seconds", "host", "python", "device", "threads", "network", "attempts", "versions", "notes"}
    assert set(record["provenance"]) == fields | {"executor", "profile", "slot"}
    assert not list(tmp_path.rglob("checkpoints"))


def test_the_loser_of_a_race_changes_nothing_and_has_not_failed(tmp_path):
    stage = toy()
    first, second = ordered(tmp_path, stage), ordered(tmp_path, stage)
    assert work(second)["failure"] == "ok"
    before = disk.read_json(Store(tmp_path).folder(stage) / "done.json")
    assert work(first)["message"] == "another attempt was first; its result is as good"
    assert first.exit["failure"] == "ok"
    assert disk.read_json(Store(tmp_path).folder(stage) / "done.json") == before


def test_two_workers_never_share_an_attempt(tmp_path):
    attempt = ordered(tmp_path, toy(steps=30, step_s=0.02))
    workers = [start_fresh(attempt) for _ in range(3)]
    codes = {worker.pid: worker.wait(30) for worker in workers}
    assert sorted(codes.values()) == [0, 1, 1]
    assert codes[supervisor_of(attempt).pid] == 0
    assert attempt.exit["failure"] == "ok"
    assert attempt.log.read_text() == ""
    assert metrics_of(attempt.path.parents[3], toy(steps=30)) == list(range(1, 31))


def test_a_worker_that_comes_too_late_does_nothing(tmp_path):
    attempt = ordered(tmp_path, toy())
    attempts.withdraw(attempt, Ending("killed", "given up"))
    assert start_fresh(attempt).wait(30) == 1
    assert attempt.exit["message"] == "given up"
    assert not attempt.staging.exists()


@pytest.mark.parametrize("changed", [{"version": 2}, {"settings": {"steps": 11, "seed": 0}}])
def test_a_worker_refuses_to_make_another_stage_than_the_plan_said(tmp_path, changed):
    stage = toy()
    attempt = ordered(tmp_path, stage)
    if "version" in changed:
        # the plan was made by code of another version
        changed = {"payload": stage.payload | changed, "key": "0" * 64} | changed
    attempt.write_request(attempt.request | changed)
    assert work(attempt)["failure"] == "mismatch"
    assert "code and plan disagree" in attempt.exit["message"]
    assert Store(tmp_path).done(stage) is None


@pytest.mark.parametrize("kind", ["evaluate", "teacher_cache", "generate"])
def test_what_only_asks_a_model_is_never_spread_as_a_training_is(tmp_path, kind):
    attempt = ordered(tmp_path, toy())
    attempt.write_request(attempt.request | {"kind": kind, "spread": "weights", "num_cards": 2})
    assert work(attempt)["failure"] == "mismatch"
    assert "spread: weights for 2 cards" in attempt.exit["message"]
    assert "by layers" in attempt.exit["message"]


def test_a_training_is_never_spread_by_whole_layers(tmp_path):
    attempt = ordered(tmp_path, toy())
    attempt.write_request(attempt.request | {"kind": "distill", "spread": "layers", "num_cards": 2})
    assert work(attempt)["failure"] == "mismatch"
    assert "by weights" in attempt.exit["message"]


@pytest.mark.parametrize("hurt", ["gone", "a file lacks", "another one"])
def test_a_missing_input_is_named(tmp_path, hurt):
    below = toy(seed=1)
    above = toy(below)
    drive(tmp_path, [below])
    attempt, folder = ordered(tmp_path, above), Store(tmp_path).folder(below)
    if hurt == "gone":
        disk.remove_tree(folder)
    elif hurt == "a file lacks":
        (folder / "out/result.json").unlink()
    else:
        record = disk.read_json(folder / "stage.json")
        disk.write_json(folder / "stage.json", record | {"payload": toy(seed=2).payload})
        assert Store(tmp_path).done(toy(seed=2)) is None  # it is whole, but lies where the other one's name is
    assert work(attempt)["failure"] == "missing_input"
    assert below.folder in attempt.exit["message"]


@pytest.mark.parametrize(
    ("fault", "failure", "message"),
    [
        ("error", "error", "told to fail at step 1"),
        ("crash", "error", "ValueError: told to crash at step 1"),
        ("network", "network", "ConnectionError: told to find no network"),
        ("denied", "denied", "told to be denied"),
        ("oom", "oom", "MemoryError: told to run out of memory"),
        ("nospace", "nospace", "OSError: [Errno 28] told to find no space"),
        ("die", "killed", "killed by SIGKILL (exit code 137): memory ran out, or somebody killed it"),
        ("exit", "error", "the process ended with code 0 and no result"),
        ("empty", "error", "the toy left no result"),
    ],
)
def test_every_failure_has_its_class_and_one_line_and_commits_nothing(tmp_path, fault, failure, message):
    stage = toy(fault=fault)
    ended = work(ordered(tmp_path, stage))
    assert (ended["failure"], ended["message"]) == (failure, message)
    assert failure in FAILURES
    assert not Store(tmp_path).folder(stage).exists()
    assert ours(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "is_memory_out", "failure", "message"),
    [
        (signal.SIGKILL, True, "memory", "killed by SIGKILL (exit code 137): this machine's memory ran out"),
        (signal.SIGKILL, False, "killed", "killed by SIGKILL (exit code 137): memory ran out, or somebody killed it"),
        (signal.SIGBUS, False, "memory", "killed by SIGBUS (exit code 135): /dev/shm or a mapped file's disk is full"),
        (signal.SIGSEGV, True, "killed", "killed by SIGSEGV (exit code 139)"),
    ],
)
def test_a_death_for_want_of_memory_has_a_class_of_its_own(number, is_memory_out, failure, message):
    assert deaths.death_of(number, is_memory_out) == (failure, message)


def test_a_worker_that_no_kill_ends_is_waited_for_a_while_and_told_by_its_pid(tmp_path):
    slot = Slot("gpu 0", frozenset({"heavy"}), gpu=f"GPU-{time.time_ns()}")
    attempt = ordered(tmp_path, toy(fault="hang"), slot=slot.record(), stall_s=0.5)
    code = """if True:
        import sys, time
        from ablate.execution import supervisor

        class Feeble(supervisor.Supervisor):
            def _kill(self):
                self.killed_at = self.killed_at or time.monotonic()

        supervisor.Supervisor, supervisor.STUCK_S, supervisor.STACKS_S = Feeble, 0.5, 0.1
        supervisor.main(sys.argv[1:])"""
    subprocess.run([sys.executable, "-c", code, str(attempt.path)], start_new_session=True, timeout=60, check=False)
    assert attempt.exit["failure"] == "gpu_fault"
    assert re.fullmatch(r"pid \d+ has not ended 0.5 s after it was killed \(no step, .*\)", attempt.exit["message"])


def test_what_diverged_is_committed_with_its_curve(tmp_path):
    stage = toy(fault="diverge", fault_step=3)
    assert work(ordered(tmp_path, stage))["failure"] == "diverged"
    store = Store(tmp_path)
    assert store.done(stage)
    assert store.diverged(stage) == "diverged at step 3: loss is nan"
    assert metrics_of(tmp_path, stage) == [1, 2, 3]


def test_the_traceback_is_in_the_log(tmp_path):
    attempt = ordered(tmp_path, toy(fault="crash"))
    work(attempt)
    assert "Traceback" in attempt.log.read_text()
    assert "raise" in attempt.log.read_text()


def test_a_stages_own_pool_of_processes_ends_when_it_is_told_to():
    code = "from ablate.execution import worker; import multiprocessing as mp; worker._stopping()\n"
    code += "for _ in range(5):\n  with mp.Pool(2) as pool: list(pool.imap(abs, range(100)))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_flood_of_output_that_is_not_utf8_is_bounded_and_readable(tmp_path):
    attempt = ordered(tmp_path, toy(print_bytes=60_000_000))
    supervisor, peak = start_fresh(attempt), 0
    while supervisor.poll() is None:
        for one in ours(tmp_path):
            with contextlib.suppress(psutil.Error):
                peak = max(peak, one.memory_info().rss)
        time.sleep(0.02)
    assert (supervisor.returncode, attempt.exit["failure"]) == (0, "ok")
    assert peak < 200 << 20  # of supervisor or worker: the log is written as it comes
    assert attempt.log.stat().st_size <= capped_log.CAP_BYTES + (1 << 18)
    assert all("not UTF-8" in line for line in capped_log.tail(attempt.log, 5))


def test_a_log_keeps_its_beginning_and_its_end(tmp_path):
    log = capped_log.CappedLog(tmp_path / "log.txt", head=100, tail=100, cap=1000)
    for number in range(1000):
        log.write(b"line %d\n" % number)
    text = (tmp_path / "log.txt").read_text()
    assert text.startswith("line 0\n")
    assert text.endswith("line 999\n")
    assert "its middle was dropped" in text
    assert len(text) < 1200


def test_a_password_in_a_url_is_in_no_log_and_no_last_word(tmp_path):
    text = "GET https://user:se@cret@mirror.org/api failed\n"
    capped_log.CappedLog(tmp_path / "log.txt").write(b"\xff " + text.encode())
    assert (tmp_path / "log.txt").read_bytes() == b"\xff GET https://mirror.org/api failed\n"
    assert ending_of(ValueError(text)).message == "ValueError: GET https://mirror.org/api failed"


def test_a_hung_stage_is_killed_and_its_stacks_are_in_the_log(tmp_path):
    attempt = ordered(tmp_path, toy(fault="hang"), stall_s=0.5)
    assert work(attempt)["failure"] == "stalled"
    assert "_fail" in attempt.log.read_text()
    assert ours(tmp_path) == []


def test_a_killed_child_is_told_by_its_supervisor(tmp_path):
    attempt = ordered(tmp_path, toy(fault="hang"))
    supervisor = start_fresh(attempt)
    worker_of(supervisor).kill()
    supervisor.wait(10)
    assert attempt.exit["failure"] == "killed"


def test_what_a_stage_leaves_running_ends_with_it(tmp_path):
    assert work(ordered(tmp_path, toy(fault="litter")))["failure"] == "ok"
    assert ours(tmp_path) == []


def test_a_worker_never_outlives_its_supervisor(tmp_path):
    attempt = ordered(tmp_path, toy(fault="hang"))
    supervisor = start_fresh(attempt)
    wait_for(lambda: is_counting(attempt))
    supervisor.kill()
    supervisor.wait()
    wait_for(lambda: ours(tmp_path) == [])
    assert attempt.exit is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_to_go_is_a_preemption_with_a_checkpoint(tmp_path, number):
    attempt = ordered(tmp_path, toy(steps=10_000, step_s=0.01))
    supervisor = start_fresh(attempt)
    wait_for(lambda: is_counting(attempt))
    supervisor.send_signal(number)
    supervisor.wait(10)
    assert attempt.exit["failure"] == "preempted"
    assert list(attempt.checkpoints.glob("step-*/manifest.json"))


def test_a_stage_that_does_not_heed_is_killed_after_its_grace(tmp_path):
    attempt = ordered(tmp_path, toy(fault="hang"), grace_s=0.5)
    supervisor = start_fresh(attempt)
    wait_for(lambda: is_counting(attempt))
    disk.write_volatile(attempt.stop_request, "")
    supervisor.wait(10)
    assert (attempt.exit["failure"], attempt.exit["message"]) == ("cancelled", "killed on request")


def test_a_heartbeat_counts(tmp_path):
    attempt = ordered(tmp_path, toy(fault="hang"), grace_s=0)
    supervisor = start_fresh(attempt)
    wait_for(lambda: attempt.heartbeat.is_file() and int(attempt.heartbeat.read_text()) >= 2)
    disk.write_volatile(attempt.stop_request, "now")
    supervisor.wait(10)


def test_a_stage_is_offline_and_knows_no_token(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    attempt = ordered(tmp_path, toy(fault="hang"), grace_s=0)
    supervisor = start_fresh(attempt)
    wait_for(lambda: is_counting(attempt))
    environ = (Path("/proc") / str(supervisor.pid) / "environ").read_bytes()
    disk.write_volatile(attempt.stop_request, "now")
    supervisor.wait(10)
    assert b"hf_canary" not in environ
    assert b"HF_HUB_OFFLINE=1" in environ
    assert not any(b"hf_canary" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_fetching_stage_keeps_the_token(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    attempt = ordered(tmp_path, toy(fault="hang"), grace_s=0, is_online=True)
    supervisor = start_fresh(attempt)
    wait_for(lambda: is_counting(attempt))
    environ = (Path("/proc") / str(supervisor.pid) / "environ").read_bytes()
    disk.write_volatile(attempt.stop_request, "now")
    supervisor.wait(10)
    assert b"hf_canary" in environ
    assert b"HF_HUB_OFFLINE=1" not in environ


# the forked start


@pytest.fixture(scope="module")
def fork_server():
    server = ForkServer()
    yield server
    server.close()


def forked(fork_server: ForkServer, attempt: Attempt) -> float:
    """Has the fork server see an attempt through; -> seconds until its worker had signed."""
    asked_at = time.monotonic()
    fork_server.ask(attempt)
    wait_for(lambda: attempt.worker.is_file())
    signed_after = time.monotonic() - asked_at
    wait_for(lambda: attempt.exit)
    assert list(fork_server.refused()) == []
    return signed_after


def test_a_forked_start_takes_no_time_and_gives_the_same_result(tmp_path, fork_server):
    cold, hot, once_more = tmp_path / "cold", tmp_path / "hot", toy(seed=9)
    forked(fork_server, ordered(hot, once_more))  # waits for the imports
    stage = toy(seed=3)
    signed_after = min(forked(fork_server, ordered(hot, toy_stage)) for toy_stage in (toy(seed=1), toy(seed=2), stage))
    work(ordered(cold, stage))
    assert value_of(hot, stage) == value_of(cold, stage)
    assert metrics_of(hot, stage) == metrics_of(cold, stage)
    assert signed_after < 0.5
    provenance = disk.read_json(Store(hot).folder(stage) / "stage.json")["provenance"]
    assert {"torch", "transformers", "datasets", "lm_eval"} <= set(provenance["versions"])
    assert provenance["network"] == network.possible()


def test_a_forked_worker_has_its_own_session_and_outlives_the_fork_server(tmp_path, fork_server):
    attempt = ordered(tmp_path, toy(steps=100, step_s=0.02))
    fork_server.ask(attempt)
    wait_for(lambda: is_counting(attempt), 60)
    supervisor = supervisor_of(attempt)
    assert os.getsid(supervisor.pid) == supervisor.pid
    fork_server.close()
    wait_for(lambda: attempt.exit)
    assert attempt.exit["failure"] == "ok"


def test_what_a_dead_fork_server_was_asked_for_is_given_back(tmp_path):
    fork_server = ForkServer()
    attempt = ordered(tmp_path, toy())
    fork_server.ask(attempt)
    fork_server._process.kill()
    wait_for(lambda: not fork_server.is_usable)
    assert list(fork_server.refused()) == [attempt]
    fork_server.close()


def test_the_fork_server_ends_with_its_driver(tmp_path):
    code = "import time; from ablate.execution.executors.launch import ForkServer; server = ForkServer()"
    code += "; print(server._process.pid, flush=True); time.sleep(60)"
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(driver.stdout.readline())
    driver.kill()
    driver.wait()
    wait_for(lambda: processes.identity(pid) is None)


# killed at random


def test_killed_at_random_moments_it_counts_each_step_once_and_right(tmp_path):
    """SIGKILL of driver, supervisor or worker, now and then of the driver too, and the same command again."""
    seed = random.randrange(1000)
    print("seed", seed)
    dice = random.Random(seed)
    stages = chain(2, steps=100)
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    drive(calm, stages)
    for _ in range(8):
        driver = subprocess.Popen([sys.executable, str(TOYS), str(rough), "2", "0.03", "fresh", "100"])
        before = num_steps(rough)
        wait_for(lambda: num_steps(rough) != before or driver.poll() is not None)  # noqa: B023
        time.sleep(dice.uniform(0, 0.5))
        with contextlib.suppress(psutil.NoSuchProcess):
            dice.choice([psutil.Process(driver.pid), *ours(rough)]).kill()
        if dice.random() < 0.5:
            driver.kill()
        driver.wait(60)
    assert subprocess.run([sys.executable, str(TOYS), str(rough), "2", "0.001", "fresh", "100"]).returncode == 0
    for stage in stages:
        assert value_of(rough, stage) == value_of(calm, stage)
        assert metrics_of(rough, stage) == list(range(1, 101))
    assert ours(rough) == []


def num_steps(root: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in root.glob("runs/attempts/*/*/made/metrics.jsonl"))


# the table of failures


def test_a_cause_decides_the_class_and_the_first_error_is_told():
    error = ValueError("cannot load\nthe configuration")
    error.__cause__ = ConnectionResetError("broken off")
    assert ending_of(error) == ("network", "ValueError: cannot load the configuration")


def test_errors_of_libraries_are_known_by_name():
    class RepositoryNotFoundError(Exception):
        pass

    class GatedRepoError(RepositoryNotFoundError):
        pass

    assert ending_of(GatedRepoError("401")).failure == "denied"
    assert ending_of(RepositoryNotFoundError("404")).failure == "missing"
    assert ending_of(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")).failure == "oom"
    assert ending_of(RuntimeError("CUDA error: uncorrectable ECC error")).failure == "gpu_fault"
    assert ending_of(RuntimeError("CUDA error: device-side assert triggered")).failure == "error"
    assert ending_of(KeyError("x")) == ("error", "KeyError: 'x'")


def test_a_worker_that_died_without_a_word_left_none_whoever_holds_its_pipe():
    reading, writing = os.pipe()  # what the worker forked may live a moment longer than the worker
    os.set_blocking(reading, False)
    assert worker_process.read_verdict(reading) == b""
    os.write(writing, b"words")
    assert worker_process.read_verdict(reading) == b"words"
    os.close(reading)
    os.close(writing)


def test_a_worker_that_signs_while_it_is_buried_is_ended(tmp_path, monkeypatch):
    attempt = Store(tmp_path).claim("0123456789ab")
    late = subprocess.Popen(["sleep", "60"], start_new_session=True)
    withdraw = attempts.withdraw

    def slowly(attempt: Attempt, ending: Ending) -> bool:
        disk.create(attempt.worker, processes.identity(late.pid).model_dump_json())
        return withdraw(attempt, ending)

    monkeypatch.setattr(attempts, "withdraw", slowly)
    assert attempts.bury(attempt, Workers()).failure == "killed"
    assert late.wait(10) == -signal.SIGKILL
