"""How a worker's torch keeps a card's memory."""

import pytest

from ablate.execution.executors.base import ALLOCATOR, environment

ON_A_CARD = {"slot": {"device": "cuda", "gpu": "GPU-1", "threads": 1}, "is_online": False}


def test_a_cards_memory_is_kept_in_segments_that_grow(monkeypatch):
    for name in ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    assert environment(ON_A_CARD)["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"


@pytest.mark.parametrize("name", sorted(ALLOCATOR))
def test_what_a_user_says_of_the_allocator_stays_alone(monkeypatch, name):
    for one in ALLOCATOR:
        monkeypatch.delenv(one, raising=False)
    monkeypatch.setenv(name, "max_split_size_mb:64")
    assert {one: value for one, value in environment(ON_A_CARD).items() if one in ALLOCATOR} == {
        name: "max_split_size_mb:64"
    }
