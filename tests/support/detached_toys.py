"""A driver of two toys on a profile, as a command that a cluster may run and end: as `ablate run` is, detached."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from ablate.execution.detached.driver_host import EXPENDABLE
from ablate.execution.driver import driving
from ablate.execution.fleet import fleet_of
from ablate.execution.profiles import Profile
from ablate.execution.run_context import Options
from ablate.machine.slots import Placing
from ablate.store.store import Store
from support.toys import chain, quiet


def words(root: Path, profile: Profile, steps: int) -> list[str]:
    given = json.dumps(profile.record()["profile"] | {"kind": profile.kind})
    return [sys.executable, "-m", "support.detached_toys", str(root), given, str(steps)]


def stages(steps: int) -> list[Any]:
    return chain(2, steps=steps, step_s=0.1)


if __name__ == "__main__":
    folder, record, steps = sys.argv[1:]
    profile = Profile(**json.loads(record))
    options = Options(grace_s=5.0, poll_s=0.1, is_expendable=EXPENDABLE in os.environ)
    view = quiet(lambda line: print(line, flush=True))
    with driving(Store(Path(folder)), "toys", fleet_of([profile], Placing()), view, options) as driver:
        summary = driver.run(stages(int(steps)), lambda stage: stage.settings.steps)
    sys.exit(summary.exit_code)
