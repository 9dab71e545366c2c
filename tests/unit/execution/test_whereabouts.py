"""Who runs what where, as `status` and the live view say it: in the words of the user's profiles and of the cluster."""

import os
import time
from pathlib import Path

import pytest
from support.toys import ordered, quiet, toy

from ablate.core import disk, processes
from ablate.execution import status
from ablate.execution.live_view import Tally
from ablate.execution.pilots.pilot_job import PilotJob, claim_job
from ablate.execution.place_record import place_record
from ablate.execution.whereabouts import Whereabouts, by_profile, whereabouts
from ablate.planning.timing import Timing
from ablate.store.store import Store

RUNNING = Whereabouts("a100", "slurm", "a100 job 1", "1234_7", "node3")
QUEUED = Whereabouts("a100", "slurm", "a100 job 2", "1234_8", is_queued=True, why="Resources")


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (RUNNING, "a100 job 1234_7 on node3"),
        (QUEUED, "a100 job 1234_8 queued (Resources)"),
        (Whereabouts("a100", "slurm", "a100 job 2", is_queued=True), "a100 queued"),
        (Whereabouts("local", "local", "gpu 0", node="here"), "gpu 0 on here"),
        (Whereabouts("local", "local", "gpu 0"), "gpu 0"),
    ],
)
def test_a_place_is_said_in_a_few_words(place, text):
    assert str(place) == text


def test_what_runs_and_what_waits_is_counted_by_profile_with_the_reason_of_most():
    other = QUEUED._replace(why="Priority")
    here = Whereabouts("local", "local", "cpu 0", node="here")
    counts = by_profile([RUNNING, QUEUED, other, QUEUED, RUNNING, here])
    assert [str(count) for count in counts] == ["a100: 2 running, 3 queued (Resources)", "local: 1 running"]


def test_two_profiles_that_had_one_name_at_different_times_are_counted_apart():
    on_ray = RUNNING._replace(kind="ray")
    assert [(count.kind, count.num_running) for count in by_profile([RUNNING, on_ray, RUNNING])] == [
        ("ray", 1), ("slurm", 2)
    ]  # fmt: skip


def test_a_worker_of_this_machine_is_in_its_slot_on_its_host(tmp_path: Path):
    attempt = ordered(tmp_path, toy())
    assert str(whereabouts(attempt)) == "cpu"
    disk.write_volatile(attempt.worker, processes.identity().model_dump_json())
    assert str(whereabouts(attempt)) == f"cpu on {processes.host()}"


def test_the_time_left_is_said_to_be_without_queues_while_jobs_wait():
    timing = Timing()
    timing.add("toy", 10.0, 10.0)
    tally = Tally(lambda _: 3600.0, 1, timing)
    tally.begin([toy(seed=seed) for seed in range(2)], ())
    assert tally.text({}) == "0/2 stages, about 2 h 00 min left"
    text = tally.text({}, by_profile([RUNNING, QUEUED]))
    assert text == "0/2 stages; a100: 1 running, 1 queued (Resources); about 2 h 00 min left without queues"


def test_the_plain_log_counts_what_waits_and_says_where_the_rest_is(tmp_path, monkeypatch):
    monkeypatch.setattr("ablate.execution.live_view.TELL_EVERY_S", 0.0)
    lines: list[str] = []
    view = quiet(lines.append)
    places = [RUNNING, QUEUED]
    attempts = [ordered(tmp_path, toy(seed=seed)) for seed in range(2)]
    monkeypatch.setattr(view.places, "place", lambda attempt: places[attempts.index(attempt)])
    view.tick({str(attempt.path): attempt for attempt in attempts})
    assert lines[0].endswith("0/0 stages; a100: 1 running, 1 queued (Resources)")
    assert [line.partition(" ")[2].strip() for line in lines[1:]] == ["a toy: starting, a100 job 1234_7 on node3"]


def test_of_hundreds_at_work_a_plain_log_names_a_few_and_counts_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr("ablate.execution.live_view.TELL_EVERY_S", 0.0)
    monkeypatch.setattr("ablate.execution.live_view.MOST_LINES", 2)
    lines: list[str] = []
    attempts = [ordered(tmp_path, toy(seed=seed)) for seed in range(5)]
    quiet(lines.append).tick({str(attempt.path): attempt for attempt in attempts})
    assert [line.partition(" ")[2].strip() for line in lines[1:]] == ["a toy: starting"] * 2 + ["and 3 more at work"]


def test_a_result_keeps_executor_profile_slot_and_job_of_where_it_was_made():
    slot = {"slot": {"name": "a100 job 3", "shares": 7, "num_shares": 7}}
    slurm = slot | {"executor": "slurm", "profile": {"name": "a100", "options": {}}}
    job = {"ABLATE_CLUSTER_JOB": "1234_7"}
    assert place_record(slurm, job) == {
        "executor": "slurm", "profile": "a100", "slot": "a100 job 3", "job": "1234_7"
    }  # fmt: skip
    local = {"executor": "local", "profile": "local", "slot": "a100 job 3"}
    assert place_record(slot, {}) == local
    part = {"slot": {"name": "a100 job 3", "shares": 1, "num_shares": 4}}
    assert place_record(part, {}) == local | {"card_share": 0.25}


def in_pilot(attempt, number: int, **files: dict) -> PilotJob:
    """Has an attempt wait in the inbox of a job, with these files of it."""
    job = claim_job(attempt.path.parents[2] / "jobs" / "toys")
    job.hand_in(1, attempt)
    disk.write_json(attempt.path / ".pilot.json", {"places": [[f"runs/jobs/toys/{number}", 1]]})
    for name, record in files.items():
        disk.write_json(job.path / f"{name}.json", record)
    return job


def test_what_waits_in_a_clusters_queue_says_its_job_why_and_how_long(tmp_path, monkeypatch):
    profile = {"executor": "slurm", "profile": {"name": "a100", "options": {}}}
    waits, works = (ordered(tmp_path, toy(seed=seed), **profile) for seed in range(2))
    queued = {"phase": "queued", "id": "17", "node": "", "why": "waits behind others (Priority)"}
    job = in_pilot(waits, 1, job={}, heard=queued)
    os.utime(job.request, (time.time() - 180,) * 2)
    in_pilot(works, 2, job={}, heard=queued, pilot={"cluster_id": "18", "process": {"host": "node3"}})
    assert str(whereabouts(waits)) == "a100 job 17 queued 3 min (waits behind others (Priority))"
    assert str(whereabouts(works)) == "a100 job 18 on node3"
    monkeypatch.setattr("ablate.execution.workers.EXECUTORS", {})
    states = status.states([toy(seed=seed) for seed in range(2)], Store(tmp_path))
    assert [state.where.is_queued for state in states.values()] == [True, False]
