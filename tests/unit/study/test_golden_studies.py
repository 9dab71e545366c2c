"""Broken study files: each is told whole, with the place and the fix, and never with a traceback."""

import os
from pathlib import Path

import pytest
from support.paths import GOLDEN

from ablate.core.errors import StudyError
from ablate.study.load import load

FOLDER = GOLDEN / "spec"
CASES = (
    sorted(path.stem for path in FOLDER.glob("*.txt"))
    if "GOLDEN" not in os.environ
    else sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in ("base", "scores"))
)
SET = "# --set "


def _error_text(case: str) -> str:
    path = Path(f"{case}.yaml")
    lines = path.read_bytes().decode(errors="replace").splitlines()
    with pytest.raises(StudyError) as error:
        load(path, [line.removeprefix(SET) for line in lines if line.startswith(SET)])
    return f"{error.value}\n".replace(f"{Path.cwd()}/", "")


@pytest.mark.parametrize("case", CASES)
def test_a_broken_study_is_told_whole_with_place_and_fix(case, monkeypatch):
    monkeypatch.chdir(FOLDER)
    text = _error_text(case)
    golden = FOLDER / f"{case}.txt"
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()
