"""The contenders' processes, driven one step at a time."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablate.execution.executors.base import environment
from benchmarks.contenders import OURS
from benchmarks.setup import Setup

ROOT = Path(__file__).parents[1]


@dataclass
class Member:
    """One contender, and what its steps cost so far."""

    setup: Setup
    process: subprocess.Popen[str]
    versions: dict[str, str] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.setup.contender

    def step(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        self.steps.append(self.answer())

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with code {self.process.wait()}; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Team(ExitStack):
    """Starts members one after another, and ends them all."""

    def __init__(self, pythons: Mapping[str, str], tuned: Sequence[str]) -> None:
        super().__init__()
        self.pythons = pythons
        self.tuned = tuned
        """Contenders that get the C library's settings of ablate's workers."""

    def start(self, setup: Setup) -> Member:
        """-> a contender whose models are loaded."""
        python = self.pythons.get(setup.contender, sys.executable)
        command = [python, "-P", "-m", "benchmarks.worker", setup.dump()]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self._environment(setup)
        )
        self.enter_context(process)
        self.callback(process.terminate)
        member = Member(setup, process)
        member.versions = member.answer()["versions"]
        return member

    def _environment(self, setup: Setup) -> dict[str, str]:
        gpu = None if setup.device == "cpu" else os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        variables = environment({"slot": {"device": setup.device, "gpu": gpu, "threads": 1}, "is_online": False})
        if setup.contender not in self.tuned:
            variables.pop("GLIBC_TUNABLES", None)
        path = os.pathsep.join([str(ROOT), variables["PYTHONPATH"]])
        return variables | {"PYTHONPATH": path, "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}


def tuned(whose: str, contenders: Sequence[str]) -> Sequence[str]:
    """-> the contenders that `whose` (ours, all or none) means."""
    return {"ours": OURS, "all": contenders, "none": ()}[whose]
