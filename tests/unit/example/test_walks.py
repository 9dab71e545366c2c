"""The world of the on-policy study: walks whose rows never show what to do after a wrong turn."""

import ast
import json
import runpy
from functools import cache
from typing import Any

import pytest

from ablate.example import assets
from ablate.example.walks.models import WALKERS
from ablate.example.walks.tasks import TASKS

WALKS = assets() / "walks"


@cache
def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (WALKS / name).read_text(encoding="utf-8").splitlines()]


@cache
def _roads() -> dict[str, set[str]]:
    """-> the map as the task's own file has it."""
    text = (WALKS / "tasks" / "utils.py").read_text(encoding="utf-8")
    [roads] = [node for node in ast.parse(text).body if isinstance(node, ast.Assign)]
    return {place: set(others.split()) for place, others in ast.literal_eval(roads.value).items()}


def _distance(place: str, goal: str) -> int:
    """-> by trying all places at one step, at two, ..."""
    steps, there = 0, {place}
    while goal not in there:
        steps, there = steps + 1, there.union(*(_roads()[one] for one in there))
    return steps


def _parts(text: str) -> tuple[str, str, list[str]]:
    """-> start, goal and places of a prompt and what follows it."""
    asked, _, places = text.partition(":")
    _, start, _, goal = asked.split()
    return start, goal, places.rstrip(".").split()


@cache
def _model(name: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = WALKS / "models" / name
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def test_every_road_leads_back_and_everywhere():
    roads = _roads()
    assert all(place in roads[other] for place, others in roads.items() for other in others)
    assert (len(roads), sum(map(len, roads.values())) // 2) == (49, 56)
    assert max(_distance(place, goal) for place in roads for goal in roads) == 13


def test_rows_are_shortest_ways_and_never_turn_back():
    for row in _lines("data/train.jsonl"):
        start, goal, places = _parts(row["prompt"] + row["completion"])
        assert places[-1] == goal
        assert all(to in _roads()[at] for at, to in zip([start, *places], places, strict=False))
        assert len(places) == _distance(start, goal) >= 5
        assert len({start, *places}) == len(places) + 1


def test_no_walk_that_is_asked_for_is_in_a_row():
    shown = {_parts(row["prompt"])[:2] for row in _lines("data/train.jsonl")}
    asked = {_parts(question["walk"])[:2] for question in _lines("tasks/data/tiny_walks.jsonl")}
    assert not shown & asked
    assert {start for start, _ in asked} == {start for start, _ in shown}
    assert len(shown) == 120
    assert len(asked) > 300
    for task in ("tiny_on_way", "tiny_off_way"):
        assert {_parts(question["context"])[:2] for question in _lines(f"tasks/data/{task}.jsonl")} <= asked


def test_one_choice_alone_leads_nearer_and_off_the_way_it_is_to_turn_back():
    for task in ("tiny_on_way", "tiny_off_way"):
        for question in _lines(f"tasks/data/{task}.jsonl"):
            start, goal, places = _parts(question["context"])
            nearer = [one for one in question["places"] if _distance(one, goal) < _distance(places[-1], goal)]
            assert nearer == [question["places"][question["label"]]]
            assert set(question["places"]) == _roads()[places[-1]]
            assert (nearer[0] == [start, *places][-2]) == (task == "tiny_off_way")


def test_a_wrong_turn_is_the_only_difference_between_the_two_tasks():
    pairs = zip(*(_lines(f"tasks/data/{task}.jsonl") for task in ("tiny_on_way", "tiny_off_way")), strict=True)
    for on, off in pairs:
        assert off["context"].rpartition(" ")[0] == on["context"]


@pytest.mark.parametrize(
    ("answer", "arrives", "is_shortest"),
    [
        (" Acre Vale Barn Forge Cave Pier Meadow", 1.0, 1.0),
        (" Acre Dell Acre Vale Barn Forge Cave Pier Meadow", 1.0, 0.0),
        (" Acre Vale Barn Forge Cave Pier", 0.0, 0.0),
        (" Acre Vale Meadow", 0.0, 0.0),
        (" Meadow", 0.0, 0.0),
        (" Acre Vale Barn Forge Cave Pier Meadow From", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_a_walk_arrives_by_roads_alone(answer: str, arrives: float, is_shortest: float):
    scored = runpy.run_path(str(WALKS / "tasks" / "utils.py"))["process_walk"]
    walk = {"start": "Quarry", "goal": "Meadow", "way": "Acre Vale Barn Forge Cave Pier Meadow"}
    assert scored(walk, [answer]) == {"arrives": arrives, "exact_match": is_shortest}


@pytest.mark.parametrize("name", WALKERS)
def test_a_walkers_folder_is_what_its_generator_says(name: str):
    model, tokenizer = _model(name)
    base = WALKERS[name].base
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (base.hidden, base.layers)
    assert model.config.vocab_size == len(tokenizer)
    assert all(len(tokenizer.tokenize(f" {place}")) == 1 for place in _roads())


def test_lm_eval_asks_for_walks_and_the_teacher_knows_its_way_from_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    from ablate.evaluation.tasks import Tasks

    scores = {}
    for name in WALKERS:
        model, tokenizer = _model(name)
        scores[name] = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=64),
            tasks=list(TASKS),
            task_manager=Tasks(TASKS, {}, WALKS / "tasks"),
            limit=40,
            bootstrap_iters=0,
        )["results"]
    assert scores["teacher"]["tiny_walks"]["exact_match,none"] == 1
    assert scores["teacher"]["tiny_off_way"]["acc,none"] == scores["teacher"]["tiny_on_way"]["acc,none"] == 1
    assert scores["student"]["tiny_walks"]["arrives,none"] < 0.2
    assert 0.4 < scores["student"]["tiny_off_way"]["acc,none"] < 0.9
