"""The tutorial's whole study on the stand-in hub: the right stages, different results, a report."""

import csv
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.paths import STUDIES
from support.served_hub import ServedHub, start_hub

SMALL = (
    "data.limit=64",
    "evaluate.limit=20",
    "dtype=float32",
    "train.warmup_steps=2",
    "distill.batch_size=16",
    "pairs.llama.teacher.finetune.batch_size=16",
)
LLAMA_KD = ("finetuned_teacher", "finetuned_student", "learning_rate", "kd_ratio")


@dataclass(frozen=True)
class Bench:
    """A root with the tutorial's study in it, and a hub to run it on."""

    root: Path
    hub: ServedHub

    def ablate(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ablate", "--root", str(self.root), *arguments]
        return subprocess.run(command, env=self.hub.env(), capture_output=True, text=True, check=False)

    @property
    def study(self) -> tuple[str, ...]:
        return (str(self.root / "studies/kd_llama.yaml"), *(part for one in SMALL for part in ("--set", one)))

    def num_committed(self, kind: str) -> int:
        return len(list((self.root / "runs/stages").glob(f"{kind}-*/done.json")))

    def results(self) -> list[dict[str, str]]:
        with (self.root / "reports/kd_llama/results.csv").open() as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def bench(hub: Path, tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("tutorial")
    shutil.copytree(STUDIES, root / "studies")
    served = start_hub(hub, root / "hf", "--fail", "5")
    bench = Bench(root, served)
    run = bench.ablate("run", *bench.study)
    assert run.returncode == 0, run.stdout + run.stderr
    yield bench
    served.stop()


def test_every_distinct_piece_is_done_once(bench):
    assert [bench.num_committed(kind) for kind in ("finetune", "distill", "evaluate")] == [4, 11, 19]


def test_the_same_command_again_starts_nothing_and_ends_at_once(bench):
    before = sorted((bench.root / "runs/attempts").glob("*/*"))
    began = time.monotonic()
    assert bench.ablate("run", *bench.study).returncode == 0
    assert time.monotonic() - began < 10  # 3 s on a machine that does nothing else
    assert sorted((bench.root / "runs/attempts").glob("*/*")) == before


def test_ten_distillations_are_ten_results(bench):
    cells = {line["key"] for line in bench.results() if line["ablation"] in LLAMA_KD}
    trained = sorted(path.parent for path in (bench.root / "runs/stages").glob("distill-*/done.json"))
    adapters = {(path / "out/adapter_model.safetensors").read_bytes() for path in trained}
    assert len(adapters) == 11
    assert len(cells) == 4 + 10


def test_the_report_shows_five_ablations_and_no_cell_missing(bench):
    lines = bench.results()
    assert {line["ablation"] for line in lines} == {*LLAMA_KD, "qwen2"}
    assert {line["state"] for line in lines} == {"done"}
    metrics = Counter(line["metric"] for line in lines)
    assert metrics == {"acc": 35 * 3, "acc_norm": 35, "log_probability": 35 * 3, "bits_per_byte": 35 * 3}
    page = (bench.root / "reports/kd_llama/report.html").read_text()
    assert "Using a fine-tuned teacher model" in page
    assert len(list((bench.root / "reports/kd_llama/figures").glob("*-losses.png"))) == 5


def test_every_metric_holds_each_step_once(bench):
    import json

    for path in (bench.root / "runs/stages").glob("distill-*/metrics.jsonl"):
        steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
        assert steps == list(range(1, len(steps) + 1))


def test_status_of_a_finished_study_needs_no_hub(bench):
    bench_without = Bench(bench.root, ServedHub("http://127.0.0.1:9", bench.hub.home, bench.hub.process))
    status = bench_without.ablate("status", *bench.study)
    assert "35 cells: 35 done" in status.stdout, status.stdout + status.stderr
