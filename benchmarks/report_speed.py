"""Where a large study's report spends its time: `python -m benchmarks.report_speed`, scratch root, results made up.

The study is `large` of tests/support/shown_studies.py: 201 cells of ten ablations, 12,080 questions each. Tells CPU
seconds of each phase in one process, then the wall seconds of a whole report, on every core, and its size.
"""

import argparse
import datetime
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ablate.planning.plan import Plan
from ablate.report.exhibits.base import EXHIBITS, OVERVIEWS, piece_of
from ablate.report.results_json import json_bytes, results_record
from ablate.report.write import write_report
from ablate.results.collect import Results, collect
from ablate.results.effects import effects_of
from ablate.results.question_scores import NotComparable, read_question_scores
from ablate.results.verdicts import findings_of
from benchmarks import table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.shown_studies import shown  # made-up results are the tests' business

LEAST_S = 0.5
"""Of an exhibit's line."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of each task's questions")
    share = parser.parse_args().share
    with tempfile.TemporaryDirectory(prefix="ablate-report-") as folder:
        plan = shown("large", Path(folder), share=share)
        print(f"{datetime.date.today()}, {table.machine('cpu')}; {len(plan.cells)} cells")
        begun = time.monotonic()
        page = write_report(plan) / "report.html"
        print(f"{time.monotonic() - begun:.1f} s of wall, report.html {page.stat().st_size / 1e6:.2f} MB")
        phases(plan)


def phases(plan: Plan) -> None:
    results: Results = _timed("collect", partial(collect, plan), least=0)
    _timed("read scores", partial(_read, results), least=0)
    _timed("effects and verdicts", partial(_statistics, results), least=0)
    for name in EXHIBITS:
        _timed(f"exhibit {name}", partial(_draw, results, name))
    for name in OVERVIEWS:
        _timed(f"overview {name}", partial(piece_of, OVERVIEWS, name, results))
    _timed("results.json", lambda: json_bytes(results_record(results)), least=0)


def _timed(name: str, act: Callable[[], Any], least: float = LEAST_S) -> Any:
    begun = time.process_time()
    result = act()
    seconds = time.process_time() - begun
    if seconds >= least:
        print(f"{seconds:6.1f} CPU s  {name}", flush=True)
    return result


def _read(results: Results) -> None:
    for cell in results.cells:
        for metric in cell.scores:
            try:
                read_question_scores(cell.samples(metric.task), metric.name)
            except NotComparable:
                continue


def _statistics(results: Results) -> None:
    for ablation in results.ablations:
        findings_of(results, ablation)
        effects_of(results, ablation)


def _draw(results: Results, name: str) -> None:
    for ablation in results.ablations:
        piece_of(EXHIBITS, name, results, ablation)


if __name__ == "__main__":
    main()
