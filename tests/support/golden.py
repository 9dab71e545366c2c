"""Half-done studies, and the texts that are kept of what is shown of them."""

import os
from pathlib import Path

from ablate.planning.plan import Cell
from support.paths import GOLDEN
from support.report_study import Bench, bench

REPORTS = GOLDEN / "report"


def golden(name: str, text: str) -> None:
    path = REPORTS / name
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def distilled(study: Bench, ablation: str = "learning_rate") -> list[Cell]:
    return [cell for cell in study.plan().cells if cell.row.ablation == ablation and cell.row.model == "distill"]


def half_done(root: Path) -> Bench:
    """One learning rate diverged, one failed, one is done; the other ablation was never begun."""
    study = bench(root)
    cells = [cell for cell in study.plan().cells if cell.row.ablation == "learning_rate"]
    study.commit(*cells[:4], cells[-1])
    study.diverge(cells[4])
    study.commit_training(cells[5])
    study.fail(cells[5].evaluate, "oom", "CUDA out of memory")
    return study
