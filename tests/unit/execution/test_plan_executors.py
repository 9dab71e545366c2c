"""What `plan --executor` says: how long without queues, card-hours, their price, and in how many jobs."""

import json
import math
import re
from collections.abc import Iterator

import pytest
from pydantic import BaseModel
from support.executors import Instant
from support.paths import ROOT
from support.planned import commit, tutorial_plan
from typer.testing import CliRunner

from ablate.cli.app import app
from ablate.cli.plan_view import plan_record, print_plan
from ablate.core.errors import AblateError
from ablate.execution.executors.base import EXECUTORS
from ablate.execution.forecast import outlook
from ablate.execution.job_forecast import profile_forecasts
from ablate.execution.profile_cards import card_of
from ablate.execution.profile_options import require_valid
from ablate.execution.profiles import HERE, Profile
from ablate.execution.simulator import simulate
from ablate.execution.status import states
from ablate.execution.task_graph import Task
from ablate.machine.slots import Placing, Slot
from ablate.planning.cost_model import CostModel, Device
from ablate.planning.plan import Plan

GIB = 1 << 30


class Options(BaseModel, extra="forbid"):
    """Of a cluster of these tests."""

    max_jobs: int = 8
    gres: str
    time_s: float | None = None
    idle_s: float = 120.0
    memory_gib: int | None = 80
    cards: int = 1
    price_per_hour: str | None = None


class Rented(Instant):
    """A cluster that is asked for its slots alone."""

    name = "rented"
    options = Options

    def __init__(self, placing: Placing) -> None:
        self._options = Options.model_validate(dict(placing.options))
        memory, heavy = self._options.memory_gib, frozenset({"light", "heavy"})
        super().__init__(
            [
                Slot(
                    f"{placing.profile} job {n}",
                    heavy,
                    "cuda",
                    memory_bytes=memory and memory * GIB,
                    num_gpus=self._options.cards,
                )
                for n in range(self._options.max_jobs)
            ]
        )

    def submit(self, attempt: object) -> None:
        raise AssertionError("a plan starts nothing")


@pytest.fixture(autouse=True)
def rented(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    list(EXECUTORS)
    monkeypatch.setitem(EXECUTORS._parts, "rented", Rented)
    monkeypatch.setitem(EXECUTORS._orders, "rented", 0)
    return


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return tutorial_plan(tmp_path_factory.mktemp("tutorial"), "distill.teacher_cache=none")


def profile(name: str = "a100", **options) -> Profile:
    return Profile(name, "rented", {"gres": "gpu:a100:1"} | options)


def task(name: str, cost: float, *needs: str) -> Task:
    return Task(name, "toy", name, "heavy", needs, cost)


def ahead(plan: Plan, *profiles: Profile, nums: tuple[int, ...] | None = None):
    return outlook(plan, states(plan.stages, plan.store), nums, profiles)


def work_hours(plan: Plan, card: str) -> float:
    """Of what is left, on one card of a sort, by costs alone."""
    costs = CostModel(plan, Device(card, {"A100": 62.4e12, "H100": 197.8e12}[card]))
    state_of = states(plan.stages, plan.store)
    heavy = [stage for stage in plan.work if not state_of[stage.key].is_over]
    return sum(costs.planned_s(stage) for stage in heavy) / 3600


def test_card_hours_are_the_work_of_all_stages_on_the_card_that_the_profile_names(plan):
    for gres, card in (("gpu:a100:1", "A100"), ("gpu:h100:1", "H100")):
        (forecast,) = ahead(plan, profile(gres=gres)).by_profile
        assert (forecast.card, forecast.num_stages) == (card, len(plan.work))
        assert forecast.card_hours == pytest.approx(work_hours(plan, card))


def test_the_price_is_the_hours_at_what_the_profile_says_of_one(plan):
    (forecast,) = ahead(plan, profile(price_per_hour="3.20 USD")).by_profile
    assert forecast.price == f"{3.2 * work_hours(plan, 'A100'):,.2f} USD"
    assert ahead(plan, profile()).by_profile[0].price is None


def test_it_says_how_long_on_all_jobs_at_once_and_that_queues_are_not_foreseen(plan):
    text = str(ahead(plan, profile(max_jobs=8)))
    assert text.startswith("on 8 cards of a100: 2 h 28 min without queues (no schedule takes less than 2 h 11 min)")
    several = ahead(plan, profile(max_jobs=2), nums=(1, 2, 4, 8)).forecasts
    assert [forecast.places for forecast in several] == [1, 2, 4, 8]
    assert sorted((forecast.seconds for forecast in several), reverse=True) == [one.seconds for one in several]


def test_without_a_time_limit_each_place_is_one_job_as_long_as_it_has_work(plan):
    (forecast,) = ahead(plan, profile(max_jobs=1)).by_profile
    assert forecast.num_jobs == 1
    assert forecast.longest_job_s == pytest.approx(3600 * work_hours(plan, "A100"))


def test_a_stage_longer_than_a_job_goes_on_in_the_next_and_the_number_of_jobs_is_told(plan):
    it = ahead(plan, profile(max_jobs=1, time_s=900.0))
    (forecast,) = it.by_profile
    assert forecast.num_jobs == math.ceil(work_hours(plan, "A100") * 4)
    assert forecast.longest_job_s == 900.0
    costs = it.costs
    long = {stage.key for stage in plan.work if costs.planned_s(stage) > 900}
    assert {stage.key for stage in forecast.long_stages} == long
    for stage in forecast.long_stages:
        assert stage.num_jobs == math.ceil(stage.seconds / 900)
    words = f"a100: {len(long)} stages are longer than a job (15 min) and go on in the next by checkpoint (the longest "
    most = math.ceil(max(map(costs.planned_s, plan.work)) / 900)
    assert sum(note.startswith(words) and note.endswith(f": {most} jobs)") for note in it.notes()) == 1


def test_one_stage_that_is_longer_than_a_job_is_named():
    slots = [Slot("a100 job 1", frozenset({"heavy"}), "cuda", profile="a100")]
    (forecast,) = profile_forecasts([profile(time_s=3600.0)], slots, simulate([task("long", 9000.0)], slots))
    assert list(forecast.lines({"long": "distill llama"})) == [
        "a100: 1 stage, 2.5 card-hours of work; 3 jobs of up to 60 min",
        "a100: 1 stage is longer than a job (60 min) and goes on in the next by checkpoint (distill llama, 2 h 30 min: "
        "3 jobs)",
    ]


def test_an_idle_job_leaves_and_another_comes_for_later_work():
    tasks = [task("head", 100.0), task("other", 40.0), task("tail", 10.0, "head", "other"), task("late", 10.0, "head")]
    slots = [Slot(f"a100 job {number}", frozenset({"heavy"}), "cuda", profile="a100") for number in range(2)]
    played = simulate(tasks, slots)  # the second place has nothing to do for 60 s
    of_idle = {idle_s: profile_forecasts([profile(idle_s=idle_s)], slots, played)[0] for idle_s in (59.0, 61.0)}
    assert [forecast.num_jobs for forecast in of_idle.values()] == [3, 2]
    assert [forecast.longest_job_s for forecast in of_idle.values()] == [110.0, 110.0]


def test_what_does_not_fit_on_a_profiles_cards_is_told_with_its_reason_and_goes_where_it_fits(plan):
    it = ahead(plan, profile("small", memory_gib=12), profile("large", gres="gpu:h100:1", memory_gib=80))
    notes = list(it.notes())
    reason = "does not fit on a card of 13 GB: its weights alone take 16.1 GB"
    (line,) = (note for note in notes if note.endswith(reason))
    assert line.startswith("small: evaluate llama/teacher/baseline, finetune llama/teacher/finetuned@0, ")
    assert sum(forecast.num_stages for forecast in it.by_profile) == len(plan.work)
    assert list(it.warnings()) == []
    alone = ahead(plan, profile("small", memory_gib=12))
    assert any("nothing here has so much memory" in warning for warning in alone.warnings())


def test_what_is_larger_than_a_card_fits_in_a_job_of_several(plan):
    it = ahead(plan, profile("four", memory_gib=12, cards=4))
    assert str(it).startswith("on 8 jobs of four: ")
    whole = "four: evaluate llama/teacher/baseline, evaluate llama/teacher/finetuned@0: about 17.2 GB of 13; it fits: "
    assert f"{whole}its layers on 2 cards, 9.2 GB a card" in list(it.notes())
    assert list(it.warnings()) == []
    assert it.forecasts[0].seconds >= it.forecasts[0].bound_s
    alone = ahead(plan, profile("one", memory_gib=12))
    assert alone.forecasts[0].seconds >= alone.forecasts[0].bound_s  # of what can run at all


def test_memory_that_a_profile_does_not_say_is_not_guessed(plan):
    notes = list(ahead(plan, profile(memory_gib=None)).notes())
    assert "a100: its profile says no `memory_bytes` of a card: what is too large is not known" in notes


def test_several_profiles_share_the_work_the_faster_card_does_more(plan):
    slow, fast = ahead(plan, profile("slow", max_jobs=4), profile("fast", gres="gpu:h100:1", max_jobs=4)).by_profile
    assert fast.num_stages > slow.num_stages > 0


def test_a_number_of_cards_is_of_one_profile(plan):
    with pytest.raises(AblateError, match=r"--gpus asks about cards of one sort, and --executor a100,b has several"):
        ahead(plan, profile(), profile("b"), nums=(4,))


def test_this_machine_has_no_jobs(plan):
    (forecast,) = ahead(plan, HERE).by_profile
    assert (forecast.kind, forecast.num_jobs) == ("local", None)


@pytest.mark.parametrize(
    ("options", "card"),
    [
        ({"gres": "gpu:a100:1"}, "A100"),
        ({"resources": {"accelerator_type:H100": 0.001}}, "H100"),
        ({"model": "NVIDIA L40S", "gres": "gpu:1"}, "L40S"),
        ({"constraint": "host4"}, None),
        ({"gres": "gpu:1"}, None),
        ({}, None),
    ],
)
def test_a_card_is_known_by_any_option_that_names_it(options, card):
    assert card_of(options) == card


def test_a_card_that_no_option_names_is_the_one_that_stages_ran_on_there(tmp_path):
    plan = tutorial_plan(tmp_path, "distill.teacher_cache=none")
    stage = next(stage for stage in plan.stages if stage.kind == "evaluate")
    assert ahead(plan, profile(gres="gpu:1")).by_profile[0].card == "unknown"
    commit(plan.store, stage, device="NVIDIA H100 80GB HBM3")
    (attempt,) = plan.store.attempts(stage.key12)
    attempt.write_request({"slot": {"profile": "a100"}})
    attempt.write_exit(failure="ok", message="", at=None, seconds=None)
    assert ahead(plan, profile(gres="gpu:1")).by_profile[0].card == "H100"


def test_before_models_and_rows_are_here_it_says_that_nothing_is_foreseen_yet(tmp_path):
    fresh = tutorial_plan(tmp_path, "distill.teacher_cache=none", is_fetched=False)
    (note,) = ahead(fresh, profile()).notes()
    assert note.startswith("card-hours, price and jobs are told once models and rows are here")


def test_a_plan_of_which_nothing_is_known_yet_names_no_time(tmp_path, capsys, plan):
    print_plan(tutorial_plan(tmp_path, "distill.teacher_cache=none", is_fetched=False))
    text = capsys.readouterr().out
    assert "waiting; how much work that is will be known once models and rows are here" in " ".join(text.split())
    assert not re.search(r"\d (s|min)\b", text)
    print_plan(plan)
    assert " of work left on one device" in capsys.readouterr().out


def test_plan_json_holds_the_same(plan):
    record = json.loads(json.dumps(plan_record(plan, None, (), (profile(price_per_hour="2 EUR"),))))
    (forecast,) = record["profiles"]
    assert forecast["price"].endswith(" EUR")
    assert forecast["num_jobs"] >= 1
    assert any(note.startswith("a100: ") for note in record["notes"])


def test_an_executor_that_is_none_is_refused_by_plan():
    result = CliRunner().invoke(app, ["plan", str(ROOT / "studies/tiny.yaml"), "--executor", "nowhere"])
    assert "unknown executor 'nowhere'" in str(result.exception)


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_of_a_study_that_is_not_there_that_is_told_and_not_that_its_folder_has_no_profiles(verb, tmp_path):
    result = CliRunner().invoke(app, [verb, str(tmp_path / "stdy.yaml"), "--executor", "a100"])
    assert "stdy.yaml: there is no such file" in str(result.exception)


@pytest.mark.parametrize("price", ["3.20", "cheap", 3.2, "USD 3.20"])
def test_a_price_is_a_number_and_a_currency(price):
    with pytest.raises(AblateError, match=r"price_per_hour: .* is no price\. Possible: 3\.20 USD"):
        require_valid(Profile("a100", "slurm", {"price_per_hour": price}))


def test_outside_of_an_allocation_its_nodes_are_neither_planned_for_nor_run_on(plan, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(AblateError, match="kind srun wants an allocation of Slurm's"):
        ahead(plan, Profile("srun", "srun"))
