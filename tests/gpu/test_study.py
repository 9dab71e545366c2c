"""A whole study on a card, through the command line."""

import csv
import json
import os
import subprocess
import sys

import pytest
import torch
from support.paths import TINY

SETS = ("train.max_steps=40", "train.warmup_steps=2", "evaluate.limit=20", "data.limit=128", "dtype=bfloat16")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    sets = [part for one in SETS for part in ("--set", one)]
    command = [sys.executable, "-m", "ablate", "--root", str(folder), "run", str(TINY), *sets]
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def records(root, *kinds):
    return [json.loads(path.read_text()) for kind in kinds for path in root.glob(f"runs/stages/{kind}-*/stage.json")]


def test_what_is_trained_and_asked_is_so_on_the_card(root):
    heavy = records(root, "finetune", "distill", "evaluate", "teacher_cache")
    assert {record["provenance"]["device"] for record in heavy} == {torch.cuda.get_device_name(0)}
    assert all(not record["provenance"]["notes"].get("nothing was shared") for record in heavy)


def test_every_cell_has_its_scores(root):
    with (root / "reports/tiny/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert {row["state"] for row in rows} == {"done"}
    assert all(row["value"] for row in rows)


def test_the_memory_of_the_card_is_recorded(root):
    for path in root.glob("runs/stages/distill-*/metrics.jsonl"):
        first = json.loads(path.read_text().splitlines()[0])
        assert 0 < first["peak_memory"] < torch.cuda.get_device_properties(0).total_memory


def test_no_card_stays_leased(root):
    listed = subprocess.run(
        ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    assert {pid for pid in listed.stdout.split() if pid.isdigit()} <= {str(os.getpid())}
