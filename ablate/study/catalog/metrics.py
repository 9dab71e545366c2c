"""Which metrics lm-eval can work out of a task: by what sort of answers it asks for, and what its file names."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from ablate.study.catalog.index import tasks_folder

OF_OUTPUT: Final[Mapping[str, frozenset[str]]] = {
    "multiple_choice": frozenset(
        {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "brier_score", "exact_match", "f1", "mcc"}
    ),
    "loglikelihood": frozenset({"acc", "perplexity"}),
    "loglikelihood_rolling": frozenset({"word_perplexity", "byte_perplexity", "bits_per_byte"}),
    "generate_until": frozenset({"exact_match", "bleu", "chrf", "chrf++", "ter"}),
}
"""What lm-eval's own way to score answers comes to, by the task's `output_type`."""


def possible_metrics(file: Mapping[str, Any]) -> frozenset[str]:
    """-> of a task's file, merged; where it scores answers by itself, nothing but what it names."""
    listed = file.get("metric_list")
    own = {str(one["metric"]) for one in listed if "metric" in one} if isinstance(listed, list) else set()
    is_scored_by_itself = "process_results" in file or "class" in file
    return frozenset(own) if is_scored_by_itself else OF_OUTPUT.get(output_type(file), frozenset()) | own


def output_type(file: Mapping[str, Any]) -> str:
    """-> what sort of answers a task asks for."""
    return str(file.get("output_type", "generate_until"))


@cache
def aggregation_names() -> frozenset[str]:
    """-> how lm-eval makes one score of many, read from its source; none where that is not as it was."""
    path = tasks_folder().parent / "api" / "metrics.py"
    source = path.read_text(encoding="utf-8") if path.is_file() else ""
    return frozenset(re.findall(r'@register_aggregation\("([^"]+)"\)', source)) - {"bypass"}
