"""Writes one of the studies to look at, and its report; without a name it tells them all.

python tests/show.py grid /tmp/grid && xdg-open /tmp/grid/reports/grid/report.html
"""

import sys
import time
from pathlib import Path

from support import shown_studies

from ablate.report.write import write_report


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit(f"{__doc__}\n{shown_studies.__doc__}")
    begun = time.monotonic()
    plan = shown_studies.shown(sys.argv[1], Path(sys.argv[2]))
    made = time.monotonic()
    folder = write_report(plan)
    print(f"{len(plan.cells)} cells, {len(plan.all_stages)} stages, made in {made - begun:.0f} s")
    print(f"{folder / 'report.html'}, written in {time.monotonic() - made:.0f} s")


if __name__ == "__main__":
    main()
