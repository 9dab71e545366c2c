"""Stages that the study gives several cards (without cards, processes): the same study, in the same tables."""

import pytest
from support.several_cards import on_one_and_two, require_alike


@pytest.mark.slow
def test_a_study_with_two_cards_a_stage_comes_to_the_results_of_one(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    one, two = on_one_and_two(tmp_path)
    require_alike(one, two, rel=1e-5)
    assert two.places == {("cpu 0 + cpu 1", 2, 2)}
