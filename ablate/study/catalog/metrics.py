"""Which metrics lm-eval works out itself, read from its source without importing it."""

import re
from functools import cache
from typing import Final

from ablate.study.catalog.index import tasks_folder

_NO_METRIC: Final = frozenset({"bypass"})
"""What stands for metrics where none is worked out."""


@cache
def metric_names() -> frozenset[str]:
    """-> the names that lm-eval registers; none where its source is not as it was."""
    return frozenset(re.findall(r'@register_metric\(\s*metric="([^"]+)"', _source())) - _NO_METRIC


@cache
def aggregation_names() -> frozenset[str]:
    """-> how lm-eval makes one score of many."""
    return frozenset(re.findall(r'@register_aggregation\("([^"]+)"\)', _source())) - _NO_METRIC


def _source() -> str:
    path = tasks_folder().parent / "api" / "metrics.py"
    return path.read_text(encoding="utf-8") if path.is_file() else ""
