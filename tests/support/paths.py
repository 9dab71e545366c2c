"""Where the checkout has what tests read."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
GOLDEN = TESTS / "golden"
ROOT = TESTS.parent
PACKAGE = ROOT / "ablate"
STUDIES = ROOT / "studies"
TINY = STUDIES / "tiny.yaml"
