"""Several profiles in one run: each stage goes to the executor whose slot it was given, and is asked for there."""

from collections.abc import Callable, Sequence

import pytest
from pydantic import BaseModel
from support.executors import Instant
from support.toys import ordered, quiet, toy

from ablate.core.errors import AblateError
from ablate.execution.driver import driving
from ablate.execution.executors.base import EXECUTORS
from ablate.execution.executors.local import Local
from ablate.execution.fleet import Fleet, Place, fleet_of
from ablate.execution.profile_file import profiles_named
from ablate.execution.profiles import HERE, Profile
from ablate.execution.run_context import Options
from ablate.execution.workers import Workers
from ablate.machine.slots import Placing, Slot, Taken
from ablate.store.attempt import Attempt
from ablate.store.store import Store


class Cluster(Instant):
    """Does what it is given at once, in slots named by its profile; keeps what it was asked."""

    def __init__(self, kind: str, placing: Placing) -> None:
        super().__init__([Slot(f"{placing.profile} job {n}", frozenset({"light", "heavy"})) for n in range(2)])
        self.name, self.placing = kind, placing
        self.polled: list[Attempt] = []
        self.num_looks, self.is_closed = 0, False

    def poll(self, attempt: Attempt) -> str:
        self.polled.append(attempt)
        return "alive"

    def look(self, num_waiting: int) -> Sequence[str]:
        self.num_looks += 1
        return [f"{self.placing.profile} is full"] if self.num_looks == 1 else []

    def close(self) -> None:
        self.is_closed = True


class AnyOptions(BaseModel, extra="allow"):
    """Of a cluster of these tests."""


@pytest.fixture
def clusters(monkeypatch: pytest.MonkeyPatch) -> list[Cluster]:
    """Every executor that is made of the kinds "slrum" and "rya", in order."""
    all_made: list[Cluster] = []

    def maker(kind: str) -> Callable[[Placing], Cluster]:
        def make(placing: Placing) -> Cluster:
            all_made.append(Cluster(kind, placing))
            return all_made[-1]

        make.options = AnyOptions
        return make

    for kind in ("slrum", "rya"):
        monkeypatch.setitem(EXECUTORS._parts, kind, maker(kind))
    return all_made


A100, CROWD = Profile("a100", "slrum", {"time": "8h"}), Profile("crowd", "rya", {"address": "auto"})


def test_stages_go_to_the_executor_of_their_slot_and_their_requests_say_which(tmp_path, clusters):
    fleet, lines = fleet_of([A100, CROWD], Placing()), []
    with driving(Store(tmp_path), "toys", fleet, quiet(lines.append), Options(poll_s=0.001)) as driver:
        assert driver.run([toy(seed=seed) for seed in range(8)], lambda _: 1.0).exit_code == 0
    a100, crowd = clusters
    for profile, cluster in ((A100, a100), (CROWD, crowd)):
        requests = [attempt.request for attempt in Store(tmp_path).all_attempts()]
        ours = [request for request in requests if request["executor"] == profile.kind]
        assert {request["key"] for request in ours} == set(cluster.placed)
        assert cluster.placed  # each had some of the work
        for request in ours:
            assert request["profile"] == {"name": profile.name, "options": profile.options}
            assert request["slot"]["profile"] == profile.name
    assert any("a100 is full" in line for line in lines)
    assert any("crowd is full" in line for line in lines)
    assert a100.is_closed
    assert crowd.is_closed


def test_each_executor_is_made_of_what_its_profile_says_and_of_nothing_else(clusters):
    fleet_of([A100, CROWD], Placing())
    assert [cluster.placing for cluster in clusters] == [
        Placing(profile="a100", options={"time": "8h"}),
        Placing(profile="crowd", options={"address": "auto"}),
    ]


def test_what_fetches_may_run_here_in_any_case_and_nothing_else_unless_local_is_among_the_profiles(clusters):
    elsewhere = [slot for slot in fleet_of([A100], Placing()).slots() if slot.profile == "local"]
    assert {slot.takes for slot in elsewhere} == {frozenset({"online"})}
    here = [slot for slot in fleet_of([A100, HERE], Placing(num_jobs=2)).slots() if slot.profile == "local"]
    assert {work for slot in here for work in slot.takes} == {"online", "light", "heavy"}


def test_a_worker_is_asked_for_by_the_options_of_its_time_whatever_the_profile_says_now(tmp_path, clusters):
    fleet = fleet_of([A100], Placing())
    now, before = A100.record(), Profile("a100", "slrum", {"time": "4h"}).record()
    ours, earlier = ordered(tmp_path, toy(), **now), ordered(tmp_path, toy(seed=1), **before)
    for workers in (Workers(fleet), Workers()):
        assert (workers.poll(ours), workers.poll(earlier)) == ("alive", "alive")
    mine, older, alone, alone_older = clusters
    assert [cluster.placing.options["time"] for cluster in clusters] == ["8h", "4h", "8h", "4h"]
    assert (mine.polled, older.polled, alone.polled, alone_older.polled) == ([ours], [earlier]) * 2


def test_an_attempt_that_names_a_kind_alone_is_asked_of_it_without_options(tmp_path, clusters):
    assert Workers().poll(ordered(tmp_path, toy(), executor="slrum")) == "alive"
    assert clusters[0].placing == Placing(profile="slrum")


def test_options_that_an_executor_does_not_take_any_more_are_no_error_and_are_not_quoted(tmp_path, monkeypatch):
    maker = EXECUTORS["local"]
    monkeypatch.setitem(EXECUTORS._parts, "other", maker)
    attempt = ordered(tmp_path, toy(), **Profile("a100", "other", {"account": "physics-0815"}).record())
    workers = Workers()
    assert workers.poll(attempt) == "unknown"
    problem = "executor 'other' does not take here what profile a100 says, so its worker cannot be asked or ended"
    assert workers.problem(attempt) == problem


def test_this_machine_twice_is_refused():
    mine = Profile("mine", "local")
    with pytest.raises(AblateError, match="local and mine are both this machine"):
        fleet_of([HERE, mine], Placing())


def test_cards_and_jobs_of_the_command_line_are_refused_where_nothing_runs_here(clusters):
    with pytest.raises(
        AblateError, match="--gpus and --jobs speak of this machine, and a100 is elsewhere: add `local`"
    ):
        fleet_of([A100], Placing(num_jobs=2))


def test_slots_of_one_name_are_refused(clusters):
    twins = [Place(profile, Instant([Slot("job 0", frozenset({"heavy"}))])) for profile in (A100, CROWD)]
    with pytest.raises(AblateError, match="a100 and crowd both have a slot named 'job 0'"):
        Fleet(twins).slots()


def test_what_others_hold_of_this_machines_cards_is_no_matter_where_only_fetches_run_here(tmp_path):
    class Shared(Local):
        def taken(self, at_work: Sequence[Attempt]) -> dict[str, Taken]:
            return {"gpu 0": Taken(1, "card 0 is in use")}

    place = Place(HERE, Shared(Placing()))
    assert Fleet([place]).taken([]) != {}
    assert Fleet([Place(HERE, place.executor, is_for_fetches=True)]).taken([]) == {}


def test_a_profile_that_is_named_twice_is_run_on_once(tmp_path, clusters):
    slots = fleet_of(profiles_named(["slrum,slrum", "slrum"], tmp_path), Placing()).slots()
    assert sum("heavy" in slot.takes for slot in slots) == 2


def test_where_stages_run_is_said_unless_it_is_here_alone(clusters):
    assert fleet_of([A100, HERE], Placing()).whereabouts() == "a100 (slrum, up to 2 at once) and here"
    bare = fleet_of([Profile("rya", "rya")], Placing()).whereabouts()
    assert bare == "rya (up to 2 at once); what fetches runs here"
    assert fleet_of([HERE], Placing()).whereabouts() is None
