"""docs/reliability.md names tests, and every one of them is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "reliability.md").read_text()


def test_every_test_that_is_named_exists():
    named = re.findall(r"tests/(test_\w+\.py)::(test_\w+)", TEXT)
    assert len(named) > 30
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in _source(file)]
    assert missing == []


def _source(file: str) -> str:
    path = ROOT / "tests" / file
    return path.read_text() if path.is_file() else ""
