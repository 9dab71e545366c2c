"""Shared by tests of processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.executors import example_service
from support.toys import ours


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an example cluster that is at work."""
    folder = tmp_path / "cluster"
    with example_service(folder) as service:
        for name, text in service.variables.items():
            monkeypatch.setenv(name, text)
        yield folder
    for left in ours(tmp_path):
        left.kill()
