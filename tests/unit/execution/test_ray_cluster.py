"""Ray as a cluster, without one: what its records mean, what a profile may say, a Ray that hangs or is not there."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support.processes import children, command_line
from support.toys import wait_for

from ablate.core.errors import AblateError
from ablate.core.failures import FAILURES
from ablate.execution.fleet import Fleet, fleet_of
from ablate.execution.pilots.cluster import JobStatus, Refused, Unreachable
from ablate.execution.pilots.pilot_job import PilotJob
from ablate.execution.profiles import Profile
from ablate.execution.ray_cluster import cluster
from ablate.execution.ray_cluster.cluster import RayCluster, handed_over
from ablate.execution.ray_cluster.line import RayLine
from ablate.execution.ray_cluster.options import RayOptions
from ablate.execution.ray_cluster.statuses import GROWS, Actor, Census, Node, statuses
from ablate.machine.slots import Placing

BIG = Node(id="a", address="10.0.0.1", is_alive=True, resources={"GPU": 4, "CPU": 8, "memory": 64 << 30})
SMALL = Node(id="b", address="10.0.0.2", is_alive=True, resources={"CPU": 64})
DEAD = Node(id="c", address="10.0.0.3", is_alive=False, resources={"GPU": 16, "CPU": 8})


def actor(state: str, node: str = "", **changed: object) -> Actor:
    return Actor.model_validate({"name": "t", "state": state, "node": node, "num_restarts": 0} | changed)


def status_of(*actors: Actor, hope: str = "", **asked: float):
    census = Census(actors=actors, nodes=(BIG, SMALL, SMALL, DEAD))
    return statuses(census, asked or {"GPU": 1, "CPU": 1}, hope)["t"]


# records


@pytest.mark.parametrize("state", ["DEPENDENCIES_UNREADY", "PENDING_CREATION", "RESTARTING"])
def test_an_actor_that_is_not_there_yet_waits_and_says_for_what(state):
    status = status_of(actor(state))
    assert (status.phase, status.is_hopeless) == ("queued", False)
    assert status.why == "waits for a node with 1 GPU, 1 CPU free"


def test_a_living_actor_runs_on_its_node():
    status = status_of(actor("ALIVE", "b"))
    assert (status.phase, status.node, status.id) == ("running", "10.0.0.2", "t")


def test_what_no_living_node_has_is_hopeless_and_the_reader_hears_what_nodes_have():
    status = status_of(actor("PENDING_CREATION"), GPU=8, CPU=1)
    assert status.is_hopeless
    assert status.why == (
        "a job asks for 8 GPU, 1 CPU, and no node of the Ray cluster has as much"
        " (1 node with 4 GPU, 8 CPU; 2 nodes with 0 GPU, 64 CPU)"
    )
    assert status_of(actor("PENDING_CREATION"), **{"accelerator_type:A100": 0.001}).is_hopeless
    assert "128 GiB memory" in status_of(actor("PENDING_CREATION"), memory=128 << 30).why


def test_no_two_nodes_together_meet_what_one_job_asks_for():
    assert status_of(actor("PENDING_CREATION"), GPU=4, CPU=64).is_hopeless


def test_where_nodes_may_come_what_none_has_is_waited_for():
    status = status_of(actor("PENDING_CREATION"), hope=GROWS, GPU=8)
    assert not status.is_hopeless
    assert status.why.endswith("it waits for one to come, as `autoscaling: true` says")


@pytest.mark.parametrize(
    ("cause", "failure"),
    [
        ("RAY_KILL", "cancelled"),
        ("NODE_DIED", "lost"),
        ("NODE_LEFT", "preempted"),
        ("OUT_OF_MEMORY", "memory"),
        ("CREATION", "error"),
    ],
)
def test_an_actors_death_counts_by_its_cause(cause, failure):
    status = status_of(actor("DEAD", "a", cause=cause, words="it went"))
    assert status.phase == "over"
    assert status.ending == (failure, "Ray: it went")
    assert failure in FAILURES


def test_an_actor_whose_process_died_counts_as_killed():
    status = status_of(actor("DEAD", "a", cause="WORKER_DIED", words="w" * 1000))
    assert status.ending is None
    assert len(status.why) < 400


def test_of_two_actors_of_one_name_the_living_one_counts():
    for pair in ([actor("ALIVE", "a"), actor("DEAD", "b")], [actor("DEAD", "b"), actor("ALIVE", "a")]):
        assert status_of(*pair).phase == "running"


def test_of_two_dead_actors_of_one_name_the_one_that_died_last_counts():
    killed = actor("DEAD", "a", cause="RAY_KILL", ended_at=1000)
    lost = actor("DEAD", "b", cause="NODE_DIED", ended_at=2000)
    for pair in ([killed, lost], [lost, killed]):
        assert status_of(*pair).ending.failure == "lost"


PENDING = actor("PENDING_CREATION")


def tables(tmp_path: Path, *nodes: Node) -> list[JobStatus]:
    """-> what is heard of a job that waits for a card, at one look after another; each time with one node."""
    crowd, answers = RayCluster(RayOptions()), list(nodes)
    crowd._census = lambda jobs: Census(actors=(PENDING,), nodes=(answers.pop(0),))
    return [crowd.table([PilotJob(tmp_path)]).jobs["t"] for _ in nodes]


def test_a_node_that_goes_is_waited_for_before_its_jobs_count_as_hopeless(tmp_path, monkeypatch):
    there, gone = BIG, SMALL
    assert [status.is_hopeless for status in tables(tmp_path, gone, there, gone)] == [True, False, False]
    assert tables(tmp_path, there, gone)[1].why.endswith("it waits up to 10 min for one to come back")
    monkeypatch.setattr(cluster, "RETURN_S", 0.0)
    assert [status.is_hopeless for status in tables(tmp_path, there, gone)] == [False, True]


# profiles


def made(**options: object) -> Fleet:
    return fleet_of([Profile("crowd", "ray", options)], Placing())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"address": "ray://head:10001"}, "run `ablate` on a node of the cluster"),
        ({"address": "head"}, "`auto` or HOST:PORT"),
        ({"num_gpus": 1.5}, "neither a part of one card nor a number of whole ones"),
        ({"num_gpus": 0, "device": "cuda"}, "do not go together"),
        ({"num_gpus": 1, "device": "cpu"}, "do not go together"),
        ({"memory": "much"}, "memory"),
        ({"num_gpu": 1}, "num_gpus"),
        ({"stage_in": "scratch/models"}, "($DISK/a), got 'scratch/models'"),
    ],
)
def test_a_profile_that_cannot_be_is_refused_with_what_is_possible(options, words):
    with pytest.raises(AblateError, match="crowd") as error:
        made(**options)
    assert words in str(error.value)


def test_with_no_card_asked_for_stages_are_on_the_processor():
    for options, device in (({}, "cuda"), ({"num_gpus": 0}, "cpu"), ({"device": "cpu"}, "cpu")):
        assert {slot.device for slot in made(**options).slots() if "heavy" in slot.takes} == {device}


def test_without_ray_the_reader_hears_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(AblateError, match=r"pip install 'ablate\[ray\]'"):
        made()


def test_neither_the_executor_nor_its_maker_imports_ray():
    code = (
        "import sys; from ablate.execution.executors.base import EXECUTORS; from ablate.machine.slots import Placing;"
        "EXECUTORS['ray'](Placing()).slots(); print([one for one in ('ray', 'torch', 'numpy') if one in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


# what is handed over


def test_a_job_is_handed_where_caches_lie_and_no_token(monkeypatch):
    monkeypatch.setenv("HF_HOME", "/shared/hf")
    monkeypatch.setenv("HF_TOKEN", "hf_canary0123456789")
    monkeypatch.setenv("WANDB_API_KEY", "canary0123456789")
    monkeypatch.setenv("HF_ENDPOINT", "http://user:canary0123456789@hub")
    given = handed_over()
    assert given["HF_HOME"] == "/shared/hf"
    assert "canary" not in str(given)
    assert "PATH" not in given
    assert "CUDA_VISIBLE_DEVICES" not in given


# a Ray that hangs

RAY = """
import os, time
def is_initialized(): return False
def init(address, **_):
    what = os.environ["RAY_FAKE"]
    if what == "hangs": time.sleep(600)
    if what == "fails": raise ConnectionError("no node   is here")
    if what == "dies": os._exit(7)
    print("Ray prints what it likes", flush=True)
def nodes(): return []
def remote(made): raise ValueError("no such resource")
"""


@pytest.fixture
def fake_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a Ray in the place of the true one that does what it is told to."""
    package = tmp_path / "ray"
    (package / "_private").mkdir(parents=True)
    (package / "__init__.py").write_text(RAY)
    (package / "cloudpickle.py").write_text("def register_pickle_by_value(module): pass\n")
    (package / "_private/__init__.py").write_text("")
    (package / "_private/state.py").write_text("def actors(): return {}\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    return lambda what: monkeypatch.setenv("RAY_FAKE", what)


def services() -> list[psutil.Process]:
    """-> those of this process."""
    mark = "ablate.execution.ray_cluster.service"
    return [one for one in children(psutil.Process()) if mark in command_line(one)]


def test_a_ray_that_hangs_is_unreachable_in_time_and_leaves_no_process(fake_ray):
    fake_ray("hangs")
    line, began_at = RayLine("auto", "ablate", timeout_s=3.0), time.monotonic()
    with pytest.raises(Unreachable, match="auto does not answer: not within 3 s"):
        line.ask("census", tokens=[])
    assert time.monotonic() - began_at < 10
    assert services() == []


@pytest.mark.parametrize(("what", "words"), [("fails", "no node is here"), ("dies", "has ended with code 7")])
def test_a_ray_that_fails_is_unreachable_in_its_own_words(fake_ray, what, words):
    fake_ray(what)
    with pytest.raises(Unreachable, match=words):
        RayLine("auto", "ablate", timeout_s=20.0).ask("census", tokens=[])
    assert services() == []


def test_an_address_for_rays_client_is_refused_from_the_environment_too(fake_ray, monkeypatch):
    fake_ray("answers")
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(Unreachable, match=r"RAY_ADDRESS is one for Ray's client .* unset it, or HOST:PORT"):
        RayLine("auto", "ablate", timeout_s=20.0).ask("census", tokens=[])


def test_where_no_head_is_at_the_address_none_is_waited_for(fake_ray):
    fake_ray("hangs")
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1: ConnectionRefusedError"):
        RayLine("127.0.0.1:1", "ablate", timeout_s=300.0).ask("census", tokens=[])


def test_what_ray_will_not_have_is_refused(fake_ray):
    fake_ray("answers")
    with pytest.raises(Refused, match="no such resource"):
        RayLine("auto", "ablate", timeout_s=20.0).ask("submit", jobs=[{"token": "t"}], options={}, settings={})


def test_a_question_that_was_broken_off_is_not_answered_with_the_next(fake_ray, monkeypatch):
    fake_ray("answers")
    line = RayLine("auto", "ablate", timeout_s=20.0)
    line.ask("census", tokens=[])
    answered = line._line
    monkeypatch.setattr(line, "_line", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        line.ask("census", tokens=[])
    monkeypatch.setattr(line, "_line", answered)
    assert line.ask("cancel", tokens=[]) is None


def test_a_process_that_was_killed_or_stopped_is_replaced_by_the_next_question(fake_ray):
    fake_ray("answers")
    line = RayLine("auto", "ablate", timeout_s=5.0)
    assert line.ask("census", tokens=[]) == {"actors": [], "nodes": []}
    services()[0].kill()
    with pytest.raises(Unreachable):
        line.ask("census", tokens=[])
    assert line.ask("census", tokens=["t" * 1_000_000]) == {"actors": [], "nodes": []}
    services()[0].send_signal(signal.SIGSTOP)
    with pytest.raises(Unreachable):
        line.ask("census", tokens=["t" * 1_000_000])  # more than a pipe holds
    assert line.ask("census", tokens=[]) == {"actors": [], "nodes": []}
    del line
    wait_for(lambda: services() == [], 10)


def test_a_process_in_a_call_that_hangs_ends_with_whoever_asked(fake_ray):
    fake_ray("hangs")
    code = "from ablate.execution.ray_cluster.line import RayLine; RayLine('auto', 'x', 600.0).ask('census', tokens=[])"
    asking = psutil.Popen([sys.executable, "-c", code])
    wait_for(asking.children)
    (service,) = asking.children()
    wait_for(lambda: any("ray_cluster.service" in word for word in command_line(service)))
    asking.kill()
    asking.wait()
    wait_for(lambda: not service.is_running(), 10)
