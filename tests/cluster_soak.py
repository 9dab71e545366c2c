"""Faults of a cluster at its worst, at random and without end: lost, late and lying answers, jobs and drivers that die.

    python tests/cluster_soak.py --faults 2000 --seed 7 --json figures.json

The judge is the soak's, outside the store: what this machine's own executor made undisturbed, a journal of starts and
commits, every process. It also asks the cluster's controller, which knows of each job, whether one is left.
"""

import os
import random
import signal
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import psutil
from soak import CALM_S, Pool, Soak, drive, fork_driver, main
from support.worst_cluster import (
    CALM,
    HAPPENINGS,
    drawn,
    faults_of,
    happen,
    jobs_left,
    start_worst,
)
from support.worst_executor import CLUSTER, SEED, cluster_executor, run_pilot

from ablate.store.stage import Stage

PACES_S = (0.02, 0.04, 0.1)
FAULTS_A_RUN = 100
CALM_TO_LEAVE_S = 15.0
"""After the last study has ended, for the last job to be gone."""
DISTURBANCES = {"signal": 1, "happening": 1}
VICTIMS = {"worker": 8, "supervisor": 8, "pilot": 8, "driver": 4, "fork server": 1}
SIGNALS = {signal.SIGKILL: 80, signal.SIGSTOP: 8, signal.SIGTERM: 5, signal.SIGINT: 3, signal.SIGUSR2: 2}
LOCAL_ODDS, ELSEWHERE_ODDS = 0.15, 0.25
"""Of a driver: that it runs its stages on its own machine, and that this is another one."""


class ClusterSoak(Soak):
    """Two studies that share stages, on one cluster at its worst."""

    FOLDERS = (*Soak.FOLDERS, "jobs")

    def __init__(self, folder: Path, seed: int, say: Callable[[str], None]) -> None:
        super().__init__(folder, seed, say)
        self.of_the_cluster: Counter[str] = Counter()
        self.jobs_left: list[str] = []

    @property
    def num_faults(self) -> int:
        return self.kills.total() + self.others.total() + self.of_the_cluster.total()

    def run(self, num_kills: int) -> None:
        """One root and one cluster, with `num_kills` faults at most on the way."""
        root, cluster = self.folder / f"run-{self.num_runs}", self.folder / f"cluster-{self.num_runs}"
        seed = self.dice.randrange(1_000_000)
        os.environ[CLUSTER], os.environ[SEED] = str(cluster), str(seed)
        self._controller = start_worst(cluster, seed, run_pilot)
        self.journal.begin(root)
        pace_s, before, most = self.dice.choice(PACES_S), self.num_faults, min(num_kills, FAULTS_A_RUN)
        drivers: dict[int, str] = {}
        left, calm_since = dict(self.studies), None
        while left:
            for study in set(left) - set(drivers.values()):
                drivers[self._fork_driver(root, study, left[study], is_calm=calm_since is not None)] = study
            time.sleep(min(1.0, self.dice.expovariate(1 / pace_s)))
            self._wake()
            if calm_since is None and self.num_faults + faults_of(cluster).total() - before < most:
                self._disturb_cluster(root, cluster, set(drivers))
            elif calm_since is None:
                (cluster / CALM).touch()
                self._wake(is_all=True)
                calm_since = time.monotonic()
            else:
                assert time.monotonic() - calm_since < CALM_S, f"{root} does not come to its end"
            self.journal.look()
            self._heed_ended(drivers, left)
        (cluster / CALM).touch()
        self._wake(is_all=True)
        self.of_the_cluster += faults_of(cluster)
        self._await_no_job(cluster)
        os.kill(self._controller, signal.SIGTERM)
        logs = [*cluster.glob("logs/*.txt"), *cluster.glob("controller.txt")]
        self.odd += [f"{path} ends in an error" for path in logs if "Traceback" in path.read_text(errors="replace")]
        self._judge(root)

    def _fork_driver(self, root: Path, study: str, stages: Sequence[Stage], *, is_calm: bool) -> int:
        executor = Pool if self.dice.random() < LOCAL_ODDS and not is_calm else cluster_executor
        host = "login-2" if self.dice.random() < ELSEWHERE_ODDS and not is_calm else None
        number = self.dice.randrange(1_000_000)

        def run() -> int:
            random.seed(number)
            threading.excepthook = self._end_by_thread
            if host:
                socket.gethostname = lambda: host
            return drive(root, study, stages, executor)

        return fork_driver(run, self.errors)

    def _end_by_thread(self, what: threading.ExceptHookArgs) -> NoReturn:
        """An error in a driver's thread is an error of the driver."""
        with self.errors.open("a") as file:
            traceback.print_exception(what.exc_type, what.exc_value, what.exc_traceback, file=file)
        os._exit(98)

    def _disturb_cluster(self, root: Path, cluster: Path, drivers: set[int]) -> None:
        if drawn(self.dice, DISTURBANCES) == "happening":
            happen(cluster, drawn(self.dice, HAPPENINGS))
            return
        who, role = self._who(root, drivers), drawn(self.dice, VICTIMS)
        number = signal.Signals(self._draw(SIGNALS))
        if who.get(role):
            self._send(self.dice.choice(who[role]), number, role)

    def _role(self, pid: int, parent: int, drivers: set[int], supervisors: set[int]) -> str:
        if pid == self._controller or parent == self._controller:
            return "cluster"
        if pid in drivers or pid in supervisors or parent in supervisors:
            return super()._role(pid, parent, drivers, supervisors)
        return "pilot" if self._is_keepers(parent) else "fork server"

    def _is_keepers(self, pid: int) -> bool:
        try:
            return psutil.Process(pid).ppid() == self._controller
        except psutil.Error:
            return False

    def _await_no_job(self, cluster: Path) -> None:
        until = time.monotonic() + CALM_TO_LEAVE_S
        while (left := jobs_left(cluster)) and time.monotonic() < until:
            time.sleep(0.1)
            list(self._ended())
        self.jobs_left += left

    @property
    def wrong(self) -> list[str]:
        return [*super().wrong, *self.jobs_left]

    def figures(self) -> dict[str, Any]:
        own = {"faults": self.num_faults, "of_the_cluster": dict(sorted(self.of_the_cluster.items()))}
        return super().figures() | own | {"jobs_left": len(self.jobs_left)}


if __name__ == "__main__":
    main(__doc__, "--faults", ClusterSoak)
