"""Faults from outside, at random and without end: drivers, supervisors and workers of toy studies killed and stopped.

    python tests/soak.py --kills 10000 --seed 7 --json figures.json

The judge shares nothing with the store. It has what an undisturbed run made, it sees every process because all are its
descendants, and it keeps a journal of its own of every start and every commit.
"""

import argparse
import contextlib
import ctypes
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout
from support.executors import QuickForkServer
from support.toys import quiet, toy

from ablate.core import disk
from ablate.core.errors import HeldError
from ablate.execution.driver import driving
from ablate.execution.executors.base import Executor
from ablate.execution.executors.local import Local
from ablate.execution.run_context import Options
from ablate.machine.slots import Placing, Slot
from ablate.store.stage import Stage
from ablate.store.store import Store

PR_SET_CHILD_SUBREAPER = 36
PACES_S = (0.01, 0.03, 0.06, 0.12)
"""Mean times between two faults, one drawn for each run."""
FAULTS_A_RUN = 100
"""Then the run may come to its end."""
CALM_S = 180.0
"""For an undisturbed rest of a run."""
HEAVY = frozenset({"heavy"})
SLOTS = [
    *(Slot(f"gpu {n}", HEAVY, "cpu", f"SOAK-{n}") for n in range(2)),  # a card's lock, held and fought for
    *(Slot(f"cpu {n}", HEAVY) for n in range(3)),
]
FAULTS = {
    signal.SIGKILL: 80,
    signal.SIGSTOP: 8,
    signal.SIGTERM: 6,
    signal.SIGINT: 3,
    signal.SIGUSR2: 2,
    signal.SIGHUP: 1,
}
VICTIMS = {"worker": 45, "supervisor": 32, "driver": 18, "fork server": 3, "all": 1}
ENDINGS = {0, 1, 4, 75, 130}
"""Of a driver that was not killed: done, a stage killed too often in one run, held, stopped, Ctrl-C."""


def stages_of_a_study() -> list[Stage]:
    """-> eight toys, four on two of them each, two on two of those: inputs first."""
    first = [toy(seed=n, steps=20 + 4 * n, step_s=0.012) for n in range(8)]
    then = [toy(*first[2 * n : 2 * n + 2], seed=n, steps=30, step_s=0.012) for n in range(4)]
    return [*first, *then, *(toy(*then[n : n + 2], seed=n, steps=25, step_s=0.012) for n in (0, 2))]


# the drivers


class Pool(Local):
    """This machine with two cards that are only locks, so that they are fought for."""

    def __init__(self) -> None:
        super().__init__(Placing(num_jobs=1))
        self._slots = SLOTS
        self._fork_server = QuickForkServer()


def drive(root: Path, study: str, stages: Sequence[Stage], executor: Callable[[], Executor] = Pool) -> int:
    """-> the exit code of one run of a study."""
    options = Options(poll_s=0.02, grace_s=10.0, stall_s=30.0)
    try:
        with driving(Store(root), study, executor(), quiet(), options) as driver:
            return driver.run(stages, lambda stage: stage.settings.steps).exit_code
    except HeldError as error:
        return error.exit_code
    except KeyboardInterrupt:  # before the driver listens, as the command line does
        return 130


def fork_driver(drive: Callable[[], int], log: Path) -> int:
    """-> the pid of a driver in a session of its own."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        os.setsid()
        code = drive()
    except BaseException:  # the last frame of a forked process
        with log.open("a") as file:
            traceback.print_exc(file=file)
    finally:
        os._exit(code)


# the judge


class Journal:
    """Starts and commits as seen from outside, and what must never be seen."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self.wrong: list[str] = []
        self.begin(Path())

    def begin(self, root: Path) -> None:
        self._runs = root / "runs"
        self.workers: dict[str, str] = {}
        self.commits: dict[str, int] = {}

    def look(self) -> None:
        for path in self._runs.glob("attempts/*/*/worker.json"):
            self._see(self.workers, "start", f"{path.parent.parent.name}/{path.parent.name}", path.read_text())
        for path in self._runs.glob("stages/*"):
            self._see(self.commits, "commit", path.name, path.stat().st_ino)
        for name in self.commits:
            if not (self._runs / "stages" / name).is_dir():
                self.wrong.append(f"{name} was committed and is gone")

    def _see(self, seen: dict[str, Any], what: str, name: str, mark: Any) -> None:
        if name not in seen:
            seen[name] = mark
            self._file.write(json.dumps({"at": time.time(), "what": what, "of": name, "mark": mark}) + "\n")
        elif seen[name] != mark:
            self.wrong.append(f"a second {what} of {name}: {seen[name]}, then {mark}")


class Soak:
    """Runs studies under faults, one root after the other, until there were enough kills."""

    FOLDERS = ("stages", "attempts", "studies")
    """Under runs/, and none beside them."""

    def __init__(self, folder: Path, seed: int, say: Callable[[str], None]) -> None:
        self.folder, self.seed, self.dice, self.say = folder, seed, random.Random(seed), say
        self.stages = stages_of_a_study()
        self.studies = {"all": self.stages, "some": self.stages[:-2]}
        self.kills: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.endings: Counter[str] = Counter()
        self.num_runs = self.num_starts = self.num_commits = self.num_leftovers = 0
        self.wrong_rows: list[str] = []
        self.leaks: list[str] = []
        self.odd: list[str] = []
        self.journal = Journal(folder / "journal.jsonl")
        self.errors = folder / "errors.txt"
        self._shared_before = set(_shared_memory())
        self._stopped: dict[int, float] = {}
        """Pid -> when it goes on."""
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.oracle = self._undisturbed()

    def _undisturbed(self) -> dict[str, bytes]:
        root = self.folder / "undisturbed"
        pid = fork_driver(lambda: drive(root, "calm", self.stages), self.errors)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        rows = self._rows(root)
        assert len(rows) == 2 * len(self.stages)
        return rows

    def _rows(self, root: Path) -> dict[str, bytes]:
        files = [path for name in ("out/result.json", "metrics.jsonl") for path in root.glob(f"runs/stages/*/{name}")]
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}

    # one run

    def run(self, num_kills: int) -> None:
        """One root from nothing to its end, with `num_kills` SIGKILLs at most on the way."""
        root = self.folder / f"run-{self.num_runs}"
        self.journal.begin(root)
        pace_s, begun = self.dice.choice(PACES_S), self.kills.total()
        drivers: dict[int, str] = {}
        left, calm_since = dict(self.studies), None
        while left:
            for study in set(left) - set(drivers.values()):
                drivers[fork_driver(partial(drive, root, study, left[study]), self.errors)] = study
            time.sleep(min(1.0, self.dice.expovariate(1 / pace_s)))
            self._wake()
            if self.kills.total() - begun < min(num_kills, FAULTS_A_RUN):
                self._disturb(root, set(drivers))
            else:
                calm_since = calm_since or time.monotonic()
                assert time.monotonic() - calm_since < CALM_S, f"{root} does not come to its end"
            self.journal.look()
            self._heed_ended(drivers, left)
        self._wake(is_all=True)
        self._judge(root)

    def _heed_ended(self, drivers: dict[int, str], left: dict[str, Any]) -> None:
        """Drivers by pid and studies that are left, without those that have ended by now."""
        for pid, code in self._ended():
            study = drivers.pop(pid, None)
            if study and code == 0:
                del left[study]
            if study:
                self._note_ending(code)

    @property
    def num_faults(self) -> int:
        """Those that count."""
        return self.kills.total()

    def _note_ending(self, code: int) -> None:
        self.endings[str(code)] += 1
        if code >= 0 and code not in ENDINGS:
            self.odd.append(f"a driver ended with {code}; see {self.errors}")

    def _ended(self) -> Iterator[tuple[int, int]]:
        """Drivers, and orphans that have become this process's."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                yield pid, os.waitstatus_to_exitcode(status)

    # faults

    def _disturb(self, root: Path, drivers: set[int]) -> None:
        who = self._who(root, drivers)
        role = self._draw(VICTIMS)
        number = signal.Signals(self._draw(FAULTS))
        if role == "all":
            for pid in (pid for pids in who.values() for pid in pids):
                self._send(pid, signal.SIGKILL, "all at once")
        elif who.get(role):
            self._send(self.dice.choice(who[role]), number, role)

    def _draw(self, weights: dict[Any, int]) -> Any:
        return self.dice.choices(list(weights), list(weights.values()))[0]

    def _who(self, root: Path, drivers: set[int]) -> dict[str, list[int]]:
        """-> living processes by what they are."""
        signed = {
            record["pid"] for path in root.glob("runs/attempts/*/*/worker.json") if (record := disk.read_json(path))
        }
        who: dict[str, list[int]] = {}
        for one in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                who.setdefault(self._role(one.pid, one.ppid(), drivers, signed), []).append(one.pid)
        return who

    def _role(self, pid: int, parent: int, drivers: set[int], supervisors: set[int]) -> str:
        if pid in drivers:
            return "driver"
        if pid in supervisors:
            return "supervisor"
        return "worker" if parent in supervisors else "fork server"

    def _send(self, pid: int, number: signal.Signals, role: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            (self.kills if number == signal.SIGKILL else self.others)[f"{number.name} {role}"] += 1
            if number == signal.SIGSTOP:
                self._stopped[pid] = time.monotonic() + self.dice.uniform(0, 1.5)

    def _wake(self, *, is_all: bool = False) -> None:
        now = time.monotonic()
        for pid in [pid for pid, at in self._stopped.items() if is_all or now > at]:
            del self._stopped[pid]
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    # the verdict

    def _judge(self, root: Path) -> None:
        self._await_quiet(root)
        self.journal.look()
        self.num_runs += 1
        self.num_starts += len(self.journal.workers)
        self.num_commits += len(self.journal.commits)
        rows = self._rows(root)
        for name in sorted(set(rows) | set(self.oracle)):
            if rows.get(name) != self.oracle.get(name):
                self.wrong_rows.append(f"{root}: {name}")
        firsts = Counter(
            path.parent.parent.name for path in root.glob("runs/attempts/*/*/exit.json") if _is_first(path)
        )
        self.journal.wrong += [f"{root}: {key} was committed {n} times" for key, n in firsts.items() if n > 1]
        self.num_leftovers += sum(1 for _ in root.glob("runs/attempts/*/*/.*"))
        self._find_leaks(root)
        if not self.wrong:
            disk.remove_tree(root)

    def _await_quiet(self, root: Path) -> None:
        until = time.monotonic() + 10
        while psutil.Process().children() and time.monotonic() < until:
            time.sleep(0.05)
            list(self._ended())
        for one in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                self.leaks.append(f"{root}: process {one.pid} {one.cmdline()} in {one.cwd()}")
                one.kill()

    def _find_leaks(self, root: Path) -> None:
        expected = {root / "runs" / name for name in self.FOLDERS}
        hidden = [*root.glob("runs/stages/**/.*"), *root.glob("runs/studies/*/.*")]
        in_studies = [path for path in root.glob("runs/studies/*/*") if path.name == "stop"]
        self.leaks += map(str, [*hidden, *in_studies, *(set((root / "runs").iterdir()) - expected)])
        temporary = Path(tempfile.gettempdir())
        self.leaks += [str(path) for path in temporary.iterdir() if path.name != "ablate-locks"]
        self.leaks += map(str, self._left_in_shared_memory())
        for path in (temporary / "ablate-locks").glob("SOAK-*.lock"):
            try:
                with FileLock(path, timeout=0):
                    pass
            except Timeout:
                self.leaks.append(f"{path} is held")

    def _left_in_shared_memory(self) -> set[Path]:
        """-> what is new there and stays; hidden files are a browser's, and other tests have folders there."""
        until = time.monotonic() + 10
        while left := set(_shared_memory()) - self._shared_before:
            if time.monotonic() > until:
                return left
            time.sleep(0.1)
        return set()

    @property
    def wrong(self) -> list[str]:
        return [*self.wrong_rows, *self.journal.wrong, *self.leaks, *self.odd]

    def figures(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "kills": self.kills.total(),
            "kills_by_victim": dict(sorted(self.kills.items())),
            "other_signals": dict(sorted(self.others.items())),
            "runs": self.num_runs,
            "stages_a_run": len(self.stages),
            "starts": self.num_starts,
            "commits": self.num_commits,
            "driver_endings": dict(sorted(self.endings.items())),
            "wrong_rows": len(self.wrong_rows),
            "double_commits": len(self.journal.wrong),
            "leaks": len(self.leaks),
            "odd_endings": len(self.odd),
            "left_for_gc": self.num_leftovers,
            "wrong": self.wrong,
        }


def _shared_memory() -> list[Path]:
    folder = Path("/dev/shm")
    return [path for path in folder.iterdir() if not path.name.startswith((".", "ablate-"))] if folder.is_dir() else []


def _is_first(path: Path) -> bool:
    record = disk.read_json(path) or {}
    return record.get("failure") == "ok" and not record.get("message")


def soak(
    folder: Path,
    num_faults: int,
    seed: int,
    say: Callable[[str], None] = print,
    keep: Callable[[dict[str, Any]], None] = lambda _: None,
    judge: Callable[[Path, int, Callable[[str], None]], Soak] = Soak,
) -> dict[str, Any]:
    """-> the figures of so many faults; ends early once something is wrong. `keep` is handed those so far."""
    say(f"seed {seed}, {num_faults} faults, in {folder}")
    one, begun = judge(folder, seed, say), time.monotonic()
    while (done := one.num_faults) < num_faults and not one.wrong:
        one.run(num_faults - done)
        done = one.num_faults
        took_s = time.monotonic() - begun
        left_s = took_s / max(1, done) * (num_faults - done)
        wrong = len(one.wrong)
        say(f"{done}/{num_faults} faults, {one.num_runs} runs, {wrong} wrong, {took_s:.0f} s, {left_s:.0f} s left")
        keep(one.figures() | {"seconds": round(took_s, 1)})
    return one.figures() | {"seconds": round(time.monotonic() - begun, 1)}


def main(about: str | None = __doc__, option: str = "--kills", judge: type[Soak] = Soak) -> None:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(option, dest="num_faults", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ablate-soak-"))
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder / "tmp")
    Path(tempfile.tempdir).mkdir()

    def keep(figures: dict[str, Any]) -> None:
        if arguments.json:
            arguments.json.write_text(json.dumps(figures, indent=1) + "\n")

    def say(line: str) -> None:
        print(line, flush=True)

    figures = soak(folder, arguments.num_faults, arguments.seed, say, keep, judge)
    print(json.dumps(figures, indent=1))
    if not figures["wrong"]:
        disk.remove_tree(folder)
    sys.exit(1 if figures["wrong"] else 0)


if __name__ == "__main__":
    main()
