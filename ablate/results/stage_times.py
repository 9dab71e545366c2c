"""Where, when and how long finished stages ran, as their own records say."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ablate.planning.plan import Plan
from ablate.results.collect import Results
from ablate.store.kind import words_by_kind
from ablate.store.manifest import read_sound
from ablate.store.stage import Stage

ON_A_DEVICE = {kind: words.work for kind, words in words_by_kind().items() if words.work}
"""Kind -> what all its stages are, in a table of device time."""


class Took(NamedTuple):
    """One finished stage of work."""

    seconds: float
    """Of one device: of several that it had at once all together."""
    device: str
    """Its model; empty where the record does not say."""


def provenance(plan: Plan, stage: Stage) -> dict[str, Any]:
    """-> host, device, started (ISO 8601), seconds, python, versions; empty of what is not done, or is damaged."""
    return read_sound(plan.store.folder(stage), "stage.json").get("provenance") or {}


def took_of(results: Results) -> Mapping[str, Took]:
    """-> key of each finished stage of work: its time on a device."""
    if "stage times" not in results.memo:
        results.memo["stage times"] = dict(_took(results.plan))
    known: Mapping[str, Took] = results.memo["stage times"]
    return known


def seconds_of(results: Results) -> dict[str, float]:
    """-> the same in seconds alone."""
    return {key: took.seconds for key, took in took_of(results).items()}


def _took(plan: Plan) -> Iterator[tuple[str, Took]]:
    for stage in plan.all_stages:
        record = provenance(plan, stage) if stage.kind in ON_A_DEVICE else {}
        if record.get("seconds") is not None:
            seconds = float(record["seconds"]) * len(record.get("cards", ["one"]))
            yield stage.key, Took(seconds, str(record.get("device", "")))
