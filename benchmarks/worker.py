"""One contender in a process of its own: takes a step whenever it is told to, and says what the step cost."""

import importlib.metadata
import json
import os
import sys
from typing import Any, TextIO

import torch

from benchmarks import contenders
from benchmarks.measure import Meter
from benchmarks.setup import Setup

PACKAGES = ("torch", "transformers", "peft", "accelerate", "torchtune", "torchao", "trl", "liger-kernel")


def main() -> None:
    """Reads one line a step, answers each with one of JSON; the first answer, unasked, is that it is ready."""
    channel = _own_channel()
    setup = Setup.parse(sys.argv[1])
    if setup.device == "cpu":
        torch.set_num_threads(1)
    contender = contenders.find(setup.contender)(setup)
    meter = Meter(setup.device)
    contender.prepare()
    _say(channel, versions=_versions())
    for _ in sys.stdin:
        losses: dict[str, float] = {}
        measured = meter.measure(lambda sums=losses: sums.update(contender.step()))
        _say(channel, **measured._asdict(), losses=losses, forwarded=contender.forwarded)


def _own_channel() -> TextIO:
    """-> what was standard output, which libraries may print to: they get standard error."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return channel


def _say(channel: TextIO, **answer: Any) -> None:
    channel.write(json.dumps(answer) + "\n")
    channel.flush()


def _versions() -> dict[str, str]:
    known = {name: _version(name) for name in PACKAGES}
    return {name: version for name, version in known.items() if version}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
