"""docs/reliability.md names a test for every fault, and every test that it names is there."""

import re

from support.paths import ROOT

TEXT = (ROOT / "docs" / "reliability.md").read_text()


def test_every_test_that_is_named_exists():
    named = re.findall(r"tests/([\w/]+/test_\w+\.py)::(test_\w+)", TEXT)
    assert len(named) > 40
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in _source(file)]
    assert missing == []


def _source(file: str) -> str:
    path = ROOT / "tests" / file
    return path.read_text() if path.is_file() else ""


def test_every_fault_has_a_row_with_a_test():
    rows = [line for line in TEXT.splitlines() if re.match(r"\| \d", line) and "::test_" in line]
    numbers = {int(number) for line in rows for number in re.findall(r"\d+", line.split("|")[1])}
    assert set(range(1, 30)) <= numbers
