"""`benchmarks.card` runs at toy sizes without a card, so that the minutes of one are spent on measuring."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from support.paths import ROOT

from benchmarks.card_sections import SECTIONS, Section, sizes

MEASURED = ("profile", "pairs", "loss_memory", "loading", "evaluation")
"""But for those that are processes of their own: peers (`benchmarks.step`), sharing."""


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield sizes.toy(tmp_path_factory.mktemp("card"), "cpu")
    torch.set_num_threads(num_threads)


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


@pytest.mark.parametrize("name", MEASURED)
def test_a_section_measures_numbers_and_shows_them_in_a_table(name, card):
    section = Section.find(name)
    measured = json.loads(json.dumps(section.measure(card)))
    assert numbers(measured)
    assert all(map(math.isfinite, numbers(measured)))
    assert "| --- |" in section.show(measured)


def test_one_command_writes_what_each_section_found_and_no_path(tmp_path):
    command = [sys.executable, "-m", "benchmarks.card", "--toy", "--device", "cpu", "--sections", "sharing"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([*command, "--out", tmp_path], cwd=ROOT, env=environment, check=True, capture_output=True)
    record = json.loads((tmp_path / "card.json").read_text())
    assert record["sections"]["sharing"]["measured"]["together_s"] > 0
    text = (tmp_path / "card.md").read_text()
    assert SECTIONS["sharing"].title in text
    assert str(ROOT) not in text


def test_all_sections_together_take_no_more_than_ten_minutes():
    assert sum(section.seconds for section in SECTIONS.values()) <= 600


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
