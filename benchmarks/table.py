"""What a run found, as people read it: medians over rounds of ratios within a round."""

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contenders import CAPTURES, ENTRIES, OURS

GIB = 2**30


@dataclass(frozen=True)
class Measurement:
    """One contender's run."""

    seconds: tuple[float, ...]
    """Of each round after the warm-up."""
    peak: int
    """Bytes above the models."""
    forwarded: int
    losses: Mapping[str, float]
    """Of the first step."""
    versions: Mapping[str, str]


def ratio(ours: Sequence[float], base: Sequence[float]) -> str:
    """-> the median ratio, and the range of the rounds."""
    ratios = [a / b for a, b in zip(ours, base, strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def steps(measurements: Mapping[str, Measurement], bases: Sequence[str], real_tokens: int, unit: str) -> str:
    """-> a table: a row a contender, a column a base."""
    head = ["contender", unit, *(f"/ {base}" for base in bases), "GiB above the models", f"GiB / {bases[0]}"]
    rows = [
        [
            f"`{name}` {ENTRIES[name].note}",
            f"{median(one.seconds):.3g}",
            *(ratio(one.seconds, measurements[base].seconds) for base in bases),
            f"{one.peak / GIB:.2f}",
            f"{one.peak / measurements[bases[0]].peak:.2f}",
            f"{one.forwarded / real_tokens:.2f}",
        ]
        for name, one in measurements.items()
    ]
    return markdown([*head, "forwarded / real tokens"], rows)


def shared_teacher(measurements: Mapping[str, Measurement], num_runs: int) -> str:
    """-> a table: runs that ask the teacher in each, over one capture and as many runs from it."""
    forms = [form for form, capture in CAPTURES.items() if form in measurements and capture in measurements]
    peers = [name for name in ("beside", "torchtune", "trl", "peft", "liger") if name in measurements]
    if not (forms and peers):
        return ""
    rows = [
        [
            f"`{name}`",
            *(ratio(_times(measurements[name], num_runs), _cached(measurements, form, num_runs)) for form in forms),
        ]
        for name in peers
    ]
    return markdown([f"{num_runs} runs", *(f"/ capture and {num_runs} runs, {form}" for form in forms)], rows)


def _times(one: Measurement, num_runs: int) -> list[float]:
    return [num_runs * seconds for seconds in one.seconds]


def _cached(measurements: Mapping[str, Measurement], form: str, num_runs: int) -> list[float]:
    pairs = zip(measurements[CAPTURES[form]].seconds, measurements[form].seconds, strict=True)
    return [capture + num_runs * step for capture, step in pairs]


def versions(measurements: Mapping[str, Measurement]) -> str:
    """-> every version in use; two of one package where contenders have environments of their own."""
    names = sorted({name for one in measurements.values() for name in one.versions})
    known = {
        name: sorted({one.versions[name] for one in measurements.values() if name in one.versions}) for name in names
    }
    return ", ".join(f"{name} {' and '.join(numbers)}" for name, numbers in known.items())


def machine(device: str) -> str:
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, 1 thread"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def unlike(measurements: Mapping[str, Measurement], tolerance: float) -> Iterator[str]:
    """-> first-step losses that are not those of ablate: such contenders do other work."""
    known: dict[str, tuple[str, float]] = {}
    for name in sorted(measurements, key=lambda name: name not in OURS):
        for loss, value in measurements[name].losses.items():
            whose, expected = known.setdefault(loss, (name, value))
            if not abs(value - expected) <= tolerance * abs(expected):
                yield f"{loss} of {name} is {value:.6g}, of {whose} {expected:.6g}"


def as_json(measurements: Mapping[str, Measurement]) -> dict[str, Any]:
    return {name: vars(one) for name, one in measurements.items()}
