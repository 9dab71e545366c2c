"""One stage on two cards: NCCL, a card for each process, leases of both."""

import pytest
import torch
from support.several_cards import on_one_and_two, require_alike


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="wants two cards")
def test_a_study_with_two_cards_a_stage_comes_to_the_results_of_one(tmp_path):
    one, two = on_one_and_two(tmp_path)
    require_alike(one, two, rel=1e-3)
    assert {num_cards for _, num_cards, _ in two.places} == {2}
