"""The report of a large study, twice: `python -m benchmarks.report`, on a scratch root, results made up.

Four ablations of 16 distilled rows, each with four reference rows, 3 seeds: 216 cells. Tells wall seconds, sizes, and
whether the second one is the first to the last byte.
"""

import datetime
import sys
import tempfile
import time
from pathlib import Path

from ablate.report.write import MADE, write_report
from benchmarks import table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.report_study import Bench, bench  # made-up results are the tests' business

GRID = {"distill.lr": [1e-3, 3e-4, 1e-4, 1e-5], "distill.kd_ratio": [0.2, 0.4, 0.6, 0.8]}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ablate-report-") as folder:
        study = finished(Path(folder))
        print(f"{datetime.date.today()}, {table.machine('cpu')}; {len(study.plan().cells)} cells")
        first, seconds = written(study)
        again, seconds_again = written(study)
    size = sum(map(len, first.values()))
    print(f"{seconds:.1f} s, again {seconds_again:.1f} s; the same bytes: {first == again}")
    print(f"report.html {len(first['report.html']) / 1e6:.1f} MB, all {len(first)} files {size / 1e6:.1f} MB")


def finished(root: Path) -> Bench:
    """-> the study with all its results."""
    ablations = {
        f"a{number}": {"title": f"Ablation {number}", "grid": GRID, "set": {"train.warmup_steps": number + 1}}
        for number in range(4)
    }
    study = bench(root, ablations=ablations, seeds=[0, 1, 2])
    for cell in study.plan().cells:
        if cell.trained and not study.store.done(cell.trained):
            study.commit_training(cell)
        if not study.store.done(cell.evaluate):
            study.commit_evaluation(cell)
    return study


def written(study: Bench) -> tuple[dict[str, bytes], float]:
    """-> every file of a report that was not there, and the wall seconds that it took."""
    folder = study.store.report_folder(study.study.name)
    (folder / MADE).unlink(missing_ok=True)
    begun = time.monotonic()
    write_report(study.plan())
    seconds = time.monotonic() - begun
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return files, seconds


if __name__ == "__main__":
    main()
