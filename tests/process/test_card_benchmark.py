"""`benchmarks.card` runs whole at toy sizes without a card, so that the minutes of one are spent on measuring."""

import json
import math
import os
import subprocess
import sys

import pytest
from support.paths import ROOT

SECTIONS = ("profile", "pairs", "loss_memory", "loading", "evaluation", "sharing")
"""But for peers, which is `benchmarks.step` in a process of its own."""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    command = [sys.executable, "-m", "benchmarks.card", "--toy", "--device", "cpu", "--sections", *SECTIONS]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([*command, "--out", folder], cwd=ROOT, env=environment, check=True, capture_output=True)
    return folder


def numbers(value):
    match value:
        case dict():
            return [number for one in value.values() for number in numbers(one)]
        case list():
            return [number for one in value for number in numbers(one)]
        case bool():
            return []
        case int() | float():
            return [value]
    return []


def test_every_section_measures_something_and_none_fails(out):
    record = json.loads((out / "card.json").read_text())
    for name in SECTIONS:
        measured = record["sections"][name]["measured"]
        assert "failure" not in measured, name
        assert numbers(measured), name
        assert all(map(math.isfinite, numbers(measured))), name


def test_what_is_printed_names_every_section_and_no_path(out):
    text = (out / "card.md").read_text()
    assert text.count("\n### ") == len(SECTIONS)
    assert str(ROOT) not in text


def test_a_section_that_cannot_end_costs_itself_alone(tmp_path):
    code = (
        "from benchmarks import card, card_sections\n"
        "from benchmarks.card_sections import sizes\n"
        "from pathlib import Path\n"
        "name = 'loading'\n"
        "card.SECTIONS[name] = card.SECTIONS[name]._replace(seconds=0.01)\n"
        f"print(card._measured(name, sizes.toy(Path({str(tmp_path)!r}), 'cpu'))['measured'])\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "{'failure': 'not done after 0 s'}"
