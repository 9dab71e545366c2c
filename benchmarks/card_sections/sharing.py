"""Trainings that share a card by time-slicing, beside as many one after another: each a process, as a stage is."""

import sys
import time
from subprocess import PIPE, Popen
from typing import Any

from benchmarks import table
from benchmarks.card_sections.sizes import Card
from benchmarks.card_sections.training_steps import Steps
from benchmarks.team import ROOT

NUM = 4


def measure(card: Card) -> dict[str, Any]:
    num = 2 if card.is_cpu else NUM
    members = [_start(card) for _ in range(num)]
    try:
        for member in members:
            _wait(member)
        alone = [_stepped(members[:1]) for _ in range(2)][-1]
        together = [_stepped(members) for _ in range(2)][-1]
    finally:
        for member in members:
            member.kill()
            member.wait()
    return {"num": num, "alone_s": alone, "together_s": together}


def _start(card: Card) -> "Popen[str]":
    command = [sys.executable, "-m", "benchmarks.card_sections.sharing", card.dump()]
    return Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=ROOT)


def _wait(member: "Popen[str]") -> None:
    assert member.stdout
    if not member.stdout.readline():
        raise SystemExit(f"a training ended with code {member.wait()}; what it wrote is above")


def _stepped(members: "list[Popen[str]]") -> float:
    """-> seconds until each has taken its steps."""
    begun = time.perf_counter()
    for member in members:
        assert member.stdin
        member.stdin.write("step\n")
        member.stdin.flush()
    for member in members:
        _wait(member)
    return time.perf_counter() - begun


def show(measured: dict[str, Any]) -> str:
    num, alone, together = measured["num"], measured["alone_s"], measured["together_s"]
    row = [str(num), f"{alone:.3g}", f"{together:.3g}", f"{num * alone / together:.2f}"]
    return table.markdown(["trainings", "s, one alone", "s, all at once", "times faster than one after another"], [row])


def main() -> None:
    """Takes the card's steps whenever a line comes, and answers with one."""
    card = Card.parse(sys.argv[1])
    steps = Steps(card, min(card.num_rows), "finetune")
    steps.take()
    print("ready", flush=True)
    for _ in sys.stdin:
        for _ in range(card.num_steps):
            steps.seconds()
        print("done", flush=True)


if __name__ == "__main__":
    main()
