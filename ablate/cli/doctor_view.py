"""What `doctor` prints: a line for each thing of a machine, in the colour of its state."""

from collections.abc import Iterable

from rich.console import Console

from ablate.core.doctor_line import Line

STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


def printed_one_by_one(lines: Iterable[Line], *, is_quiet: bool) -> list[Line]:
    """-> the lines, each printed as soon as it is known."""
    console, printed = Console(quiet=is_quiet), []
    for line in lines:
        printed.append(line)
        console.print(f"[{STYLES[line.state]}]{line.state:8}[/]", end="")
        advice = f" -> {line.advice}" if line.advice else ""
        console.print(f"{line.what}: {line.text}{advice}", markup=False, highlight=False, soft_wrap=True)
    return printed
