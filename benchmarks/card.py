"""What a card does with real sizes, in ten minutes at most: `python -m benchmarks.card`.

Llama 3.1 8B and 3.2 1B with random weights, made on the card: nothing is downloaded. Each section is a process of its
own with a limit of its own: one that fails, hangs or runs out of memory costs itself and is told.
"""

import argparse
import datetime
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.card_sections import SECTIONS, Section, sizes
from benchmarks.card_sections.sizes import Card
from benchmarks.team import ROOT

PACKAGES = ("torch", "transformers", "liger-kernel", "torchtune", "trl", "bitsandbytes", "torchao")


def main() -> None:
    options = _options()
    if options.section:  # in the process that measures it
        card = Card.parse(options.card)
        print(json.dumps(Section.find(options.section).measure(card)))
        return
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="ablate-card-") as folder:
        card = sizes.toy(Path(folder), options.device) if options.toy else sizes.real(Path(folder))
        record = {"machine": table.machine(card.device), "date": str(datetime.date.today()), "versions": _versions()}
        record["sections"] = {name: _measured(name, card) for name in options.sections}
    print(_report(record))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "card.json").write_text(json.dumps(record, indent=1) + "\n")
        (options.out / "card.md").write_text(_report(record))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.card", description=__doc__)
    parser.add_argument("--toy", action="store_true", help="small models: whether all of this runs")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--scratch", type=Path, help="where models and answers are put for a while")
    parser.add_argument("--out", type=Path, help="folder for card.md and card.json")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--card", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cpu" and not (options.toy or options.section):
        parser.error("--device cpu wants --toy: the real sizes are a card's")
    return options


def _measured(name: str, card: Card) -> dict[str, Any]:
    """-> what a section measured, or why it did not; and how long that took."""
    command = [sys.executable, "-m", "benchmarks.card", "--section", name, "--card", card.dump()]
    begun = time.monotonic()
    try:
        ended = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False, timeout=SECTIONS[name].seconds
        )
    except subprocess.TimeoutExpired:
        outcome: dict[str, Any] = {"failure": f"not done after {SECTIONS[name].seconds:.0f} s"}
    else:
        is_done = ended.returncode == 0
        outcome = json.loads(ended.stdout.splitlines()[-1]) if is_done else {"failure": f"exit {ended.returncode}"}
    took = time.monotonic() - begun
    print(f"{name}: {outcome.get('failure', 'done')}, {took:.0f} s", file=sys.stderr, flush=True)
    return {"measured": outcome, "took_s": took}


def _report(record: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    parts = [f"{record['date']}, {record['machine']}. {versions}\n"]
    for name, section in record["sections"].items():
        measured = section["measured"]
        failure = measured.get("failure")
        text = f"Failed: {failure}\n" if failure else Section.find(name).show(measured)
        parts.append(f"### {SECTIONS[name].title} ({section['took_s']:.0f} s)\n\n{text}")
    return "\n".join(parts)


def _versions() -> dict[str, str]:
    known = {}
    for name in PACKAGES:
        try:
            known[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return known


if __name__ == "__main__":
    main()
