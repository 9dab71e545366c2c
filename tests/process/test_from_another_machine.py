"""status, stop and logs -f on a machine where nothing of the study runs: by the folder alone."""

import os
import signal
import threading
import time

import pytest
from support.nodes import toys_on
from support.report_study import bench
from support.toys import chain, checkpointed, ordered, ours, toy, wait_for

from ablate.cli import log_view, status_view
from ablate.core import disk, processes
from ablate.core.errors import AblateError
from ablate.execution import driver_records, life_signs, status, stop, study_lock
from ablate.execution.life_signs import LifeSigns
from ablate.store.attempt import Attempt
from ablate.store.store import Store


def of_node(attempt: Attempt, node: str) -> Attempt:
    """Has an attempt's worker be of another machine."""
    worker = processes.identity().model_copy(update={"host": node, "pid": 17})
    disk.write_volatile(attempt.worker, worker.model_dump_json())
    return attempt


def beat(attempt: Attempt, number: int, age_s: float = 0.0) -> None:
    """`age_s`: as old the heartbeat looks by this machine's clock."""
    disk.write_volatile(attempt.heartbeat, f"{number}\n")
    os.utime(attempt.heartbeat, (time.time() - age_s,) * 2)


def test_a_worker_elsewhere_that_has_been_silent_for_long_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(life_signs, "CONFIRM_S", 0.5)
    attempt = of_node(ordered(tmp_path, toy()), "node7")
    beat(attempt, 5, age_s=190)
    (state,) = status.states([toy()], Store(tmp_path), LifeSigns()).values()
    assert (state.word, str(state.where)) == ("running", "cpu on node7")
    assert state.progress == "starting; no sign of life for 3 min from pid 17 on node7"


def test_a_worker_whose_machine_has_another_clock_is_not_called_silent(tmp_path, monkeypatch):
    monkeypatch.setattr(life_signs, "CONFIRM_S", 20.0)
    attempt = of_node(ordered(tmp_path, toy()), "node7")
    beat(attempt, 1, age_s=7200)
    heart = threading.Timer(0.5, beat, [attempt, 2, 7200])
    heart.start()
    signs = LifeSigns()
    begun_at = time.monotonic()
    (state,) = status.states([toy()], Store(tmp_path), signs).values()
    assert state.progress == "starting"
    assert time.monotonic() - begun_at < 15
    heart.join()
    (state,) = status.states([toy()], Store(tmp_path), signs).values()
    assert state.progress == "starting"


def test_stop_ends_a_driver_on_another_machine_and_what_runs_for_it(tmp_path):
    run = toys_on("node7", tmp_path, steps=400)
    wait_for(lambda: checkpointed(tmp_path))
    assert stop.stop_study(Store(tmp_path), "toys") == 1
    assert run.wait(30) == 75
    assert ours(tmp_path) == []
    assert study_lock.driver_of(Store(tmp_path), "toys") is None
    (state, *_) = status.states(chain(2, steps=400), Store(tmp_path)).values()
    assert state.word == "waiting"


def test_stop_says_of_a_driver_that_does_not_answer_that_it_could_not_see_it_end(tmp_path, monkeypatch):
    monkeypatch.setattr(stop, "NOW_S", 1.0)
    monkeypatch.setattr(study_lock, "READER_S", 2.0)
    run = toys_on("node7", tmp_path, steps=400)
    wait_for(lambda: checkpointed(tmp_path))
    run.send_signal(signal.SIGSTOP)
    with pytest.raises(AblateError, match=rf"its driver, pid {run.pid} on node7, gives no sign of life"):
        stop.stop_study(Store(tmp_path), "toys", is_now=True)
    run.send_signal(signal.SIGCONT)  # it finds the request
    assert run.wait(30) == 75
    wait_for(lambda: ours(tmp_path) == [])


def test_logs_are_followed_from_one_attempt_to_the_next_on_another_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(log_view, "POLL_S", 0.02)
    plan = bench(tmp_path).plan()
    stage = next(cell.trained for cell in plan.cells if cell.trained)
    printed: list[str] = []

    def has_printed(text: str) -> bool:
        printed.extend(capsys.readouterr())
        return text in "".join(printed)

    def attempt(node: str, line: bytes) -> Attempt:
        new = plan.store.claim(stage.key12)
        disk.append(new.log, line)
        new.write_request({"kind": stage.kind, "key": stage.key, "payload": stage.payload, "study": plan.study.name})
        return of_node(new, node)

    with study_lock.held(plan.store, plan.study.name):
        first = attempt("node7", b"step 1\nhalf a li")
        reader = threading.Thread(
            target=log_view.print_log, args=(lambda: plan, stage.key12), kwargs={"is_following": True}
        )
        reader.start()
        wait_for(lambda: has_printed("half a li"))
        disk.append(first.log, b"ne\n")
        wait_for(lambda: has_printed("ne\n"))
        first.write_exit(failure="lost", message="node7 is gone", at=None, seconds=None)
        wait_for(lambda: has_printed("[attempt 1 has ended: lost node7 is gone; the next is waited for]"))
        second = attempt("node8", b"step 2\n")
        wait_for(lambda: has_printed("step 2\n"))
        assert has_printed("[attempt 2 on node8]")
        assert reader.is_alive()
        second.write_exit(failure="error", message="no such luck", at=None, seconds=None)
        reader.join(30)
        assert not reader.is_alive()


def test_a_shared_folders_log_that_lost_its_middle_is_read_on(tmp_path, capsys):
    path = tmp_path / "log.txt"
    disk.append(path, b"x" * 1000 + b"\n")
    reader = log_view.LogReader(path)
    reader.print_rest()
    disk.write_volatile(path, b"[the middle was dropped]\n")
    reader.print_rest()
    disk.append(path, "né\n".encode()[:2])
    reader.print_rest()
    disk.append(path, "né\n".encode()[2:])
    reader.print_rest()
    assert capsys.readouterr().out.endswith("x\nné\n")


def test_status_names_the_silent_driver_of_another_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(study_lock, "READER_S", 0.5)
    study = bench(tmp_path)
    driver = processes.identity().model_copy(update={"host": "node7", "pid": 17})
    disk.make_folder(study.store.study_folder("small"))
    driver_records.claim(study.store, "small", driver, None)
    now = status_view.look(study.plan())
    assert now.driver.startswith("pid 17 on node7, no sign of life for ")
