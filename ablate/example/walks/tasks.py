"""The lm-eval tasks of the walks: a walk to be written, and the next place to be chosen, on the way and off it."""

import random
from collections.abc import Iterator
from pathlib import Path

from ablate.example.tasks import HEAD, METRICS, TAIL, write_jsonl
from ablate.example.walks.roads import Map
from ablate.example.walks.walks import Walk, prompt, split_walks, written

Question = dict[str, object]
"""`cluster` is what questions of one origin share: their goal."""

MAX_TOKENS = 48
"""Of a walk that is written: the longest way has 13 places."""
WALK = f"""\
task: tiny_walks
dataset_path: json
dataset_kwargs:
  data_files:
    validation: data/tiny_walks.jsonl       # relative to this file
validation_split: validation
output_type: generate_until
num_fewshot: 0
# A walk is written, likeliest token by likeliest token, up to its full stop.
doc_to_text: "{{{{walk}}}}"
doc_to_target: "{{{{way}}}}"
generation_kwargs: {{until: ["."], do_sample: false, temperature: 0.0, max_gen_toks: {MAX_TOKENS}}}
process_results: !function utils.process_walk
metric_list:
  - metric: arrives                         # every step is a road, and the last place is the goal
    aggregation: mean
    higher_is_better: true
  - metric: exact_match                     # the shortest way, word for word
    aggregation: mean
    higher_is_better: true
"""
NEXT = """\
# {what}
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{places}}}}"
doc_to_target: "{{{{label}}}}"
"""
UTILS = '''\
"""The scoring of tiny_walks."""

from collections.abc import Mapping, Sequence

# where roads lead
ROADS = {{
{roads}}}


def process_walk(doc: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """-> whether the walk arrives, by roads alone; whether it is the shortest way."""
    places = results[0].split()
    steps = zip([doc["start"], *places], places, strict=False)
    by_roads = all(place in ROADS.get(before, "").split() for before, place in steps)
    arrives = bool(places) and by_roads and places[-1] == doc["goal"]
    return {{"arrives": float(arrives), "exact_match": float(" ".join(places) == doc["way"])}}
'''


def walk_questions(roads: Map, seed: int) -> list[Question]:
    """-> every walk that is in no row."""
    _, walks = split_walks(roads, seed)
    return [
        {
            "id": f"{walk.start}-{walk.goal}",
            "cluster": walk.goal,
            "start": walk.start,
            "goal": walk.goal,
            "walk": prompt(walk),
            "way": written(roads.way(*walk))[1:-1],
        }
        for walk in walks
    ]


def on_way_questions(roads: Map, seed: int) -> list[Question]:
    """-> where to go on, after some places of the shortest way."""
    return _next_questions(roads, seed, strays=False)


def off_way_questions(roads: Map, seed: int) -> list[Question]:
    """-> where to go on, after the same places and one more, which was a wrong turn."""
    return _next_questions(roads, seed, strays=True)


def _next_questions(roads: Map, seed: int, *, strays: bool) -> list[Question]:
    _, walks = split_walks(roads, seed)
    rng = random.Random(f"next {seed}")
    pairs = [pair for walk in walks for pair in _turns(walk, roads, rng)]
    return [_next_question(walk, off if strays else on, roads) for walk, on, off in pairs]


def _turns(walk: Walk, roads: Map, rng: random.Random) -> Iterator[tuple[Walk, list[str], list[str]]]:
    """-> up to two beginnings of a walk, each on the way and with a wrong turn; where to go on is beyond doubt."""
    way = roads.way(*walk)
    for number in sorted(rng.sample(range(1, len(way)), 2)):
        on = way[:number]
        wrong = [
            place
            for place in roads.roads[on[-1]]
            if place not in (walk.start, *on) and roads.distance(place, walk.goal) > roads.distance(on[-1], walk.goal)
        ]
        wrong = [place for place in wrong if _is_clear(place, walk.goal, roads)]
        if wrong and _is_clear(on[-1], walk.goal, roads):
            yield walk, on, [*on, rng.choice(wrong)]


def _is_clear(place: str, goal: str, roads: Map) -> bool:
    return len(roads.roads[place]) > 1 and len(roads.nearer(place, goal)) == 1


def _next_question(walk: Walk, places: list[str], roads: Map) -> Question:
    choices = list(roads.roads[places[-1]])
    return {
        "id": f"{walk.start}-{walk.goal}-{len(places)}",
        "cluster": walk.goal,
        "context": prompt(walk) + written(places)[:-1],
        "places": choices,
        "label": choices.index(roads.next_place(places[-1], walk.goal)),
    }


TASKS = {
    "tiny_walks": (WALK, walk_questions),
    "tiny_on_way": (
        HEAD.format(name="tiny_on_way") + NEXT.format(what="Where to go on, on the shortest way.") + METRICS,
        on_way_questions,
    ),
    "tiny_off_way": (
        HEAD.format(name="tiny_off_way") + NEXT.format(what="Where to go on, after a wrong turn.") + METRICS,
        off_way_questions,
    ),
}


def write_walk_tasks(folder: Path, roads: Map, seed: int) -> None:
    """Write the task folder that `include_path` of the study names."""
    for name, (text, questions) in TASKS.items():
        write_jsonl(folder / "data" / f"{name}.jsonl", questions(roads, seed))
        (folder / f"{name}.yaml").write_text(text + TAIL, encoding="utf-8")
    lines = "".join(f'    "{place}": "{" ".join(others)}",\n' for place, others in roads.roads.items())
    (folder / "utils.py").write_text(UTILS.format(roads=lines), encoding="utf-8")
