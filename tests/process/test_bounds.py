"""What a stage may take of a machine: processes, output, address space; what takes more is ended and told."""

import signal
import subprocess
import sys

import psutil
import pytest
from support.toys import ordered, ours, toy, wait_for

from ablate.core.failures import FAILURES, Ending, ending_of
from ablate.execution.deaths import death_of
from ablate.execution.executors.base import environment, python
from ablate.execution.executors.launch import start_fresh
from ablate.machine import address_space, process_count
from ablate.maintenance import doctor


def test_a_stage_that_forks_for_ever_is_ended_and_told(tmp_path):
    attempt = ordered(tmp_path, toy(fault="crowd"))
    start_fresh(attempt).wait(60)
    assert attempt.exit["failure"] == "crowded"
    assert f"{process_count.MOST} are the most" in attempt.exit["message"]
    assert FAILURES["crowded"].num_retries == 0
    wait_for(lambda: not ours(tmp_path), 10)


def test_processes_are_counted_as_far_as_they_go():
    nested = "sleep 30 & sleep 30 & (sleep 30 & sleep 30 & wait) & wait"
    with subprocess.Popen(["bash", "-c", nested], start_new_session=True) as bash:
        wait_for(lambda: process_count.num_descendants(bash.pid) == 5)
        assert len(psutil.Process(bash.pid).children(recursive=True)) == 5
        assert process_count.num_descendants(bash.pid, 2) == 3
        for child in psutil.Process(bash.pid).children(recursive=True):
            child.kill()
        bash.kill()
    assert process_count.num_descendants(bash.pid) == 0


def under(kilobytes: int, attempt) -> dict:
    """Has a worker see an attempt through, in a shell that says `ulimit -v`. -> its last word."""
    command = ["bash", "-c", f'ulimit -v {kilobytes}; exec "$@"', "bash"]
    supervisor = python("ablate.execution.supervisor", str(attempt.path))
    settings = environment(attempt.request)
    subprocess.run(
        [*command, *supervisor], env=settings, cwd=attempt.path, start_new_session=True, timeout=60, check=False
    )
    return attempt.exit


@pytest.mark.parametrize(("fault", "failure"), [("oom", "limited"), ("crash", "error"), ("none", "ok")])
def test_want_of_address_space_is_told_as_such_and_nothing_else_is(tmp_path, fault, failure):
    ending = under(600_000, ordered(tmp_path, toy(fault=fault)))
    assert ending["failure"] == failure
    assert ("`ulimit -v` leaves 614 MB" in ending["message"]) == (failure == "limited")


def test_without_a_limit_an_ending_is_what_it_was():
    assert address_space.limit_bytes() is None
    ending = ending_of(MemoryError("of the machine"))
    assert address_space.explained(ending, MemoryError()) == ending
    assert death_of(signal.SIGABRT, False).failure == "killed"


# what libraries said under `ulimit -v` of 300,000 to 1,500,000
SAID = [
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    RuntimeError("can't start new thread"),
    OSError("Unknown error: Failed to launch worker thread: Resource temporarily unavailable"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    OSError(12, "Cannot allocate memory"),
    RuntimeError("std::bad_alloc"),
    MemoryError("Unable to allocate 1.5 GiB for an array"),
]


@pytest.mark.parametrize("error", SAID, ids=str)
def test_what_libraries_say_for_want_of_address_space_is_known(error):
    code = (
        "import resource\nfrom ablate.core.failures import ending_of\n"
        "from ablate.machine.address_space import explained\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))\n"
        f"error = {error!r}\n"
        "print(explained(ending_of(error), error).failure)\n"
        "print(explained(ending_of(ValueError('another')), ValueError('another')).failure)\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["limited", "error"]


def test_a_death_under_a_limit_says_that_it_may_be_the_reason(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda which: (1 << 30, -1))
    ending = death_of(signal.SIGABRT, False)
    assert ending == Ending(
        "limited", "probably for want of address space: `ulimit -v` leaves 1.1 GB (killed by SIGABRT (exit code 134))"
    )
    assert death_of(signal.SIGKILL, False).failure == "killed"
    (line,) = doctor._address_space()
    assert (line.state, line.text) == ("warning", "1.1 GB for each process")
