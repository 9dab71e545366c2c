"""A driver for toy stages, as a library for the tests and as a command that they can kill."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ablate.executors.base import Placing
from ablate.executors.local import Local
from ablate.schedule import Options, Summary, driving
from ablate.stage import Stage
from ablate.stages.toy import ToySettings
from ablate.store import Store
from ablate.watch import Lines, Tally


def toy(*inputs: Stage, **settings: Any) -> Stage:
    """A toy stage that counts on from its inputs."""
    return Stage("toy", 1, ToySettings(**settings), {f"input_{number}": of for number, of in enumerate(inputs)})


def drive(
    root: Path,
    stages: Sequence[Stage],
    *,
    study: str = "toys",
    options: Options | None = None,
    placing: Placing | None = None,
    write: Callable[[str], None] | None = None,
) -> Summary:
    """Runs the stages as `ablate run` would."""
    view = Lines(Tally(lambda _: 1.0, 2), lambda stage: stage.folder, write)
    executor = Local(placing or Placing(num_jobs=2, is_warm=False))
    with driving(Store(root), study, executor, view, options) as driver:
        return driver.run(stages, lambda stage: stage.settings.steps)


def value_of(root: Path, stage: Stage) -> int:
    """What a committed toy counted to."""
    return json.loads((Store(root).folder(stage) / "out/result.json").read_text())["value"]


def chain(length: int, **settings: Any) -> list[Stage]:
    """Toys each of which needs the one before."""
    stages: list[Stage] = []
    for number in range(length):
        stages.append(toy(*stages[-1:], **settings | {"seed": number}))
    return stages


if __name__ == "__main__":
    folder, length, step_s, is_warm = sys.argv[1:]
    made = chain(int(length), steps=60, step_s=float(step_s))
    sys.exit(drive(Path(folder), made, placing=Placing(num_jobs=2, is_warm=is_warm == "warm")).exit_code)
