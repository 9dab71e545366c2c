"""What a study on a cluster costs its driver: `python -m benchmarks.driver_load`; 500 stages, 200 in flight.

All pilot jobs are played by another process, by files as real ones; a stage takes so long and does nothing. Tells CPU
seconds of the driver's process a stage, then a turn with every job at work, and, by strace where it is there, the
system calls a second.
"""

import argparse
import contextlib
import datetime
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ablate.execution.driver import driving
from ablate.execution.fleet import fleet_with
from ablate.execution.run_context import Options
from ablate.store.store import Store
from benchmarks import table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.played_cluster import OPTIONS, pilots_played, played_executor  # a played cluster is the tests' business
from support.toys import quiet, toy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=200, help="in flight at most")
    parser.add_argument("--seconds", type=float, default=5.0, help="that each stage takes")
    given = parser.parse_args()
    print(f"{datetime.date.today()}, {table.machine('cpu')}; {given.stages} stages, {given.jobs} in flight")
    cpu_s, wall_s, num_turns = driven(given.stages, given.jobs, given.seconds)
    print(
        f"{1000 * cpu_s / given.stages:.1f} ms of the driver's CPU a stage; {wall_s:.1f} s of {num_turns} turns in all"
    )
    cpu_s, wall_s, num_turns = driven(given.jobs, given.jobs, 20.0, warm_up_s=8.0)
    print(f"all at work: {1000 * cpu_s / num_turns:.2f} ms of CPU a turn, {100 * cpu_s / wall_s:.0f} % of a core")


def driven(num_stages: int, num_jobs: int, stage_s: float, warm_up_s: float | None = None) -> tuple[float, float, int]:
    """-> seconds of CPU, of the clock, and turns: of a whole run, or from so long after its begin to the first end."""
    with tempfile.TemporaryDirectory(prefix="ablate-load-") as folder:
        root, ticks = Path(folder), []
        view = quiet()
        view.tick = lambda running: ticks.append((time.process_time(), time.monotonic(), len(running)))
        executor = fleet_with(played_executor(OPTIONS.model_copy(update={"max_jobs": num_jobs})))
        with pilots_played(root, "toys", stage_s), driving(Store(root), "toys", executor, view, Options()) as driver:
            began = time.process_time(), time.monotonic()
            with traced(warm_up_s):
                summary = driver.run([toy(seed=seed) for seed in range(num_stages)], lambda _: stage_s)
        if summary.exit_code:
            raise SystemExit(f"the run ended with {summary.exit_code}")
        if warm_up_s is None:
            return time.process_time() - began[0], time.monotonic() - began[1], len(ticks)
        steady = [tick for tick in ticks if tick[1] > began[1] + warm_up_s and tick[2] == num_jobs]
        return steady[-1][0] - steady[0][0], steady[-1][1] - steady[0][1], len(steady) - 1


@contextlib.contextmanager
def traced(warm_up_s: float | None) -> Iterator[None]:
    """Has strace count for five seconds once a run is under way: what it slows is the clock, and little of the CPU."""
    if warm_up_s is None or not shutil.which("strace"):
        yield
        return
    script = f"sleep {warm_up_s + 5}; exec timeout -s INT 5 strace -f -c -p {os.getpid()}"
    with subprocess.Popen(["sh", "-c", script], stderr=subprocess.PIPE, text=True) as process:
        yield
        lines = process.communicate()[1].splitlines()
    total = next((line.split() for line in lines if line.endswith("total")), None)
    if total:
        print(f"all at work: {int(total[3]) / 5:.0f} system calls a second")


if __name__ == "__main__":
    main()
