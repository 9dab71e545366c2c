"""What `plan` says of the time and the memory that are ahead."""

import json
from dataclasses import replace

import pytest
from support.planned import TUTORIAL, commit, tutorial_plan
from typer.testing import CliRunner

from ablate.cli.app import app
from ablate.cli.plan_view import plan_record
from ablate.execution import forecast
from ablate.execution.forecast import Outlook
from ablate.execution.status import states
from ablate.machine.slots import SHARES, Slot
from ablate.planning.cost_model import USUAL, CostModel, Device
from ablate.planning.plan import Plan

GIB = 1 << 30
BESIDE = "distill.teacher_cache=none"


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return tutorial_plan(tmp_path_factory.mktemp("tutorial"), BESIDE)


def ahead(plan: Plan, *cards: int, nums: tuple[int, ...] | None = None) -> Outlook:
    """On cards of so many GiB."""
    slots = [
        Slot(f"gpu {n}", frozenset({"heavy"}), "cuda", f"GPU-{n}", 1, "NVIDIA A100-SXM4-80GB", SHARES, gib * GIB)
        for n, gib in enumerate(cards)
    ]
    return Outlook(plan, states(plan.stages, plan.store), slots, nums)


def test_the_more_cards_the_sooner_and_never_below_the_bound(plan):
    forecasts = ahead(plan, 80, nums=(1, 2, 4, 8)).forecasts
    assert [forecast.places for forecast in forecasts] == [1, 2, 4, 8]
    seconds = [forecast.seconds for forecast in forecasts]
    assert sorted(seconds, reverse=True) == seconds
    assert all(forecast.bound_s <= forecast.seconds * 1.000001 for forecast in forecasts)
    assert all(len(forecast.busy) == forecast.places and max(forecast.busy) <= 1.000001 for forecast in forecasts)


def test_plan_says_how_long_on_how_many_cards(plan):
    text = str(ahead(plan, 80, nums=(1, 2)))
    assert text.startswith("on 1, 2 cards of 62 TFLOP/s: 10 h 32 min, 5 h 17 min (no schedule takes less than")


def test_without_a_number_it_speaks_of_what_is_here(plan):
    assert str(ahead(plan, 80, 80)).startswith("on 2 cards of 62 TFLOP/s: ")
    cpus = [Slot("cpu 0", frozenset({"light", "heavy"}), memory_bytes=64 * GIB)]
    assert str(Outlook(plan, states(plan.stages, plan.store), cpus)).startswith("on 1 stage at once here: ")


def test_nothing_is_foreseen_before_models_and_rows_are_here(tmp_path):
    fresh = tutorial_plan(tmp_path, BESIDE, is_fetched=False)
    assert ahead(fresh, 80).forecasts == ()
    assert str(ahead(fresh, 80)) == ""


def test_what_no_card_here_can_hold_is_told_by_plan(plan):
    assert list(ahead(plan, 80).warnings()) == []
    warnings = list(ahead(plan, 12, 12).warnings())
    assert (
        "finetune llama/teacher/finetuned@0: its weights alone take 16.1 GB, and nothing here has so much memory;"
        " `run` fails it and goes on with the rest"
    ) in warnings
    assert not any("qwen2" in warning for warning in warnings)


def test_numbers_of_cards_elsewhere_are_not_held_against_this_machine(plan):
    cpus = [Slot("cpu 0", frozenset({"light", "heavy"}), memory_bytes=GIB)]
    assert list(Outlook(plan, states(plan.stages, plan.store), cpus, (4,)).warnings()) == []


def test_plan_json_holds_forecasts_and_both_estimates_of_memory(plan):
    record = json.loads(json.dumps(plan_record(plan, (1, 8))))
    assert [forecast["places"] for forecast in record["forecasts"]] == [1, 8]
    cost = next(stage["cost"] for stage in record["stages"] if stage["label"] == "finetune llama/teacher/finetuned@0")
    assert 16e9 < cost["weights_bytes"] < 17e9 < cost["memory_bytes"] < 60e9


def together(plan: Plan, *cards: int) -> Outlook:
    """The same on cards of one machine."""
    apart = ahead(plan, *cards)
    return replace(apart, slots=[replace(slot, can_join=True) for slot in apart.slots])


def test_more_cards_for_a_stage_than_there_are_is_told(tmp_path):
    asked = tutorial_plan(tmp_path, BESIDE, "train.cards=4", "distill.cards=2")
    assert "cards: 4 is more than there is: a stage has 2 cards here" in list(together(asked, 80, 80).notes())
    assert "cards: 4 is more than there is: a stage has one card here" in list(ahead(asked, 80, 80).notes())
    assert not any("cards:" in line for line in together(asked, 80, 80, 80, 80).notes())
    cpus = [Slot("cpu 0", frozenset({"light", "heavy"}), memory_bytes=64 * GIB)]
    assert not any("cards:" in line for line in Outlook(asked, states(asked.stages, asked.store), cpus).notes())


def test_a_model_larger_than_a_card_is_told_to_run_on_several(plan):
    assert list(together(plan, 14, 14).warnings()) == []
    (note,) = (note for note in together(plan, 14, 14).notes() if "it fits: its layers on 2 cards" in note)
    alike = "evaluate llama/teacher/baseline, evaluate llama/teacher/finetuned@0"
    assert note.startswith(f"{alike}: about 17.2 GB of 15; ")


def test_plan_says_which_stages_are_to_have_several_cards(plan):
    several = [note for note in together(plan, *[80] * 8).notes() if "cards each, as foreseen" in note]
    assert several
    assert all(" of 8 cards each, as foreseen: " in note for note in several)
    assert "finetune llama/teacher/finetuned@0" in " ".join(several)
    assert together(plan, *[80] * 8).forecasts[0].seconds < ahead(plan, *[80] * 8).forecasts[0].seconds


def test_nothing_is_told_of_cards_that_a_study_leaves_to_ablate(plan):
    assert not any("cards:" in line for line in ahead(plan, 80, 80).notes())


@pytest.mark.parametrize("gpus", ["all", "0", "1,", "-1"])
def test_a_number_of_cards_that_is_none_is_refused(gpus):
    result = CliRunner().invoke(app, ["plan", str(TUTORIAL), f"--gpus={gpus}"])
    assert str(result.exception) == f"--gpus {gpus}: plan takes numbers of cards, such as 4 or 1,2,4,8"


def test_costs_follow_earlier_results_of_the_same_sort_of_card_alone(tmp_path):
    plan = tutorial_plan(tmp_path, BESIDE)
    evaluation = next(stage for stage in plan.stages if stage.kind == "evaluate")
    planned_s = CostModel(plan).planned_s(evaluation)
    commit(plan.store, evaluation, seconds=planned_s / 4)
    assert CostModel(plan, Device("a processor")).seconds(evaluation) == pytest.approx(planned_s / 4)
    assert CostModel(plan, Device("a card")).seconds(evaluation) == planned_s


def test_a_usual_card_is_assumed_where_there_is_none(plan, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert forecast.outlook(plan, states(plan.stages, plan.store), (2,)).device == USUAL


def test_what_a_processor_took_says_nothing_of_cards_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    plan = tutorial_plan(tmp_path, BESIDE)
    evaluation = next(stage for stage in plan.stages if stage.kind == "evaluate")
    before = forecast.outlook(plan, states(plan.stages, plan.store), (2,)).costs.seconds(evaluation)
    commit(plan.store, evaluation, seconds=1e6)
    assert forecast.outlook(plan, states(plan.stages, plan.store), (2,)).costs.seconds(evaluation) == before
