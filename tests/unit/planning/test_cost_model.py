"""How long stages are thought to take: by a table of cards first, by what was seen on such a card from then on."""

from dataclasses import replace

import pytest
from support.planned import commit
from support.small_plans import plan_of, prepared

from ablate.machine import card_shares, gpus
from ablate.machine.slots import Slot
from ablate.planning.cost_model import START_S, CostModel, device_in

H100, A100 = (
    device_in(Slot(name, frozenset({"heavy"}), device="cuda", model=f"NVIDIA {name} 80GB")) for name in ("H100", "A100")
)


def distillations(plan):
    return [stage for stage in plan.stages if stage.kind == "distill"]


def test_every_entry_is_of_a_known_card_and_says_where_it_is_from():
    for entry in card_shares.SHARES:
        assert entry.card in gpus.DENSE_TFLOPS
        assert 0 < entry.share < 1
        assert entry.source in ("counted", "scaled") or entry.source.startswith("measured")
    assert len({entry[:2] for entry in card_shares.SHARES}) == len(card_shares.SHARES)


def test_a_first_forecast_goes_by_the_share_of_a_card_that_such_a_stage_gets(tmp_path):
    kept, live = prepared(tmp_path), plan_of(tmp_path, "distill.teacher_cache=none")
    for plan, share in ((kept, 0.14), (live, 0.26)):
        stage, costs = distillations(plan)[0], CostModel(plan, H100)
        assert costs.planned_s(stage) - START_S == pytest.approx(costs(stage).flops / (share * 989e12))
    other = next(stage for stage in kept.stages if stage.kind == "finetune")
    costs = CostModel(kept, H100)
    assert costs.planned_s(other) - START_S == pytest.approx(costs(other).flops / (gpus.USE * 989e12))


def took(plan, stage, seconds, **place):
    commit(plan.store, stage, seconds=seconds, device="NVIDIA H100 80GB", place=place)


def test_from_the_first_finished_stage_on_a_card_counts_what_it_took_there(tmp_path):
    plan = prepared(tmp_path)
    first, second = distillations(plan)
    planned = CostModel(plan, H100).planned_s(second)
    took(plan, first, 3 * planned)
    costs = CostModel(plan, H100, (A100,))
    assert costs.seconds(second) == pytest.approx(3 * planned)
    assert replace(costs, device=A100, others=(H100,)).timing.ratio("distill", "H100") == pytest.approx(3)


@pytest.mark.parametrize("is_alone_too", [False, True])
def test_a_stage_that_shared_its_card_counts_only_where_none_had_one_for_itself(tmp_path, is_alone_too):
    plan = prepared(tmp_path, ablations={"a": {"grid": {"distill.kd_ratio": [0.1, 0.2, 0.3]}}})
    first, second, third = distillations(plan)
    planned = CostModel(plan, H100).planned_s(third)
    took(plan, first, 8 * planned, card_share=0.25)
    if is_alone_too:
        took(plan, second, 2 * planned)
    assert CostModel(plan, H100).seconds(third) == pytest.approx((2 if is_alone_too else 8) * planned)
