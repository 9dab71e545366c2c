"""Measures a step on answers that the student writes, beside TRL's: `python -m benchmarks.on_policy --help`."""

import argparse
import datetime
import tempfile
from pathlib import Path
from statistics import median

from benchmarks import models, table
from benchmarks.contenders import OWN_ANSWERS
from benchmarks.setup import Setup
from benchmarks.team import Member, Team, tuned

LIKE = 0.1
"""Each draws answers of its own, so that losses agree as means over a thousand tokens do."""


def main() -> None:
    options = _options()
    with (
        tempfile.TemporaryDirectory(dir=options.scratch) as folder,
        Team({}, tuned("ours", options.contenders)) as team,
    ):
        models.save_pair(Path(folder), options.teacher, options.student, options.vocabulary, "float32", "cpu", 0)
        setups = [Setup(name, folder, options.vocabulary, 16, 0, "float32", "cpu") for name in options.contenders]
        members = [team.start(setup) for setup in setups]
        for number in range(1 + options.rounds):
            for member in members:
                member.step()
                print(f"round {number}: {member.name} {member.steps[-1]['seconds']:.2f} s", flush=True)
    print(_report(options, members))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.on_policy", description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--teacher", type=models.Size.parse, default="10x640", help="layers x width")
    parser.add_argument("--student", type=models.Size.parse, default="5x320")
    parser.add_argument("--contenders", nargs="+", choices=OWN_ANSWERS, default=[*OWN_ANSWERS])
    parser.add_argument("--rounds", type=int, default=5, help="after one that is not counted")
    parser.add_argument("--scratch", type=Path, help="where the models are put for a while")
    return parser.parse_args()


def _report(options: argparse.Namespace, members: list[Member]) -> str:
    """Raises SystemExit where the contenders' losses are too far apart for the same work."""
    ours = members[0].steps
    rows = []
    for member in members:
        seconds, base = ([step["seconds"] for step in steps[1:]] for steps in (member.steps, ours))
        loss, our_loss = (steps[0]["losses"]["kd_loss"] for steps in (member.steps, ours))
        if abs(loss / our_loss - 1) > LIKE:
            raise SystemExit(
                f"{member.name} does not do the same work: its first loss is {loss:.4f}, not {our_loss:.4f}"
            )
        peak = max(step["peak"] for step in member.steps) / table.GIB
        note = OWN_ANSWERS[member.name].note
        rows.append([f"`{member.name}` {note}", f"{median(seconds):.3g}", table.ratio(seconds, base), f"{peak:.2f}"])
    return "\n".join(
        [
            f"{datetime.date.today()}, {table.machine('cpu')}; a teacher of {'x'.join(map(str, options.teacher))},"
            f" a student of {'x'.join(map(str, options.student))}, V = {options.vocabulary}, {options.rounds} rounds",
            table.markdown(["contender", "CPU s", f"/ {members[0].name}", "GiB above the models"], rows),
        ]
    )


if __name__ == "__main__":
    main()
