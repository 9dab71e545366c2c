"""What `explain` prints: every stage behind a cell, with its settings and how it was made."""

from collections.abc import Iterator, Mapping
from typing import Any

from ablate.cli.console import console_of_stdout, flat, print_plainly
from ablate.core.text import duration
from ablate.execution.status import State, states
from ablate.planning.plan import Cell, Plan
from ablate.store.manifest import read_sound
from ablate.store.stage import Stage


def print_lineage(plan: Plan, cell: Cell) -> None:
    """Every stage behind a cell, each after what it needs: key, state, settings, versions and seconds."""
    print_plainly(console_of_stdout(), "\n".join(lineage(plan, cell)))


def lineage(plan: Plan, cell: Cell) -> Iterator[str]:
    """-> lines."""
    stages, state_of = list(dict.fromkeys(cell.evaluate.walk())), states(plan.stages, plan.store)
    records = {stage.key: read_sound(plan.store.folder(stage), "stage.json") for stage in stages}
    seconds = [record["provenance"].get("seconds") or 0.0 for record in records.values() if record]
    yield f"{cell.name}: {cell.row.label}"
    yield f"{len(seconds)} of {len(stages)} stages done, in {duration(sum(seconds))} of work"
    for stage in stages:
        yield from _lines(plan, stage, state_of[stage.key], records[stage.key])


def _lines(plan: Plan, stage: Stage, state: State, record: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n{stage.folder}  {plan.label(stage)}: {state.word} {state.why}".rstrip()
    yield from (f"  {name} = {value}" for name, value in flat(stage.payload["settings"]).items())
    yield from (f"  needs {name}: {needed.folder}" for name, needed in stage.inputs.items())
    provenance = flat(record["provenance"]) if record else {}
    yield from (f"  made: {name} = {value}" for name, value in provenance.items())
