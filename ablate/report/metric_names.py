"""Tasks and metrics as people write them: `TruthfulQA mc2`, `HellaSwag acc_norm`."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from ablate.results.collect import Metric

TASKS: Mapping[str, str] = MappingProxyType({
    "arc_challenge": "ARC-Challenge", "arc_easy": "ARC-Easy", "boolq": "BoolQ", "commonsense_qa": "CommonsenseQA",
    "gsm8k": "GSM8K", "hellaswag": "HellaSwag", "humaneval": "HumanEval", "ifeval": "IFEval",
    "lambada_openai": "LAMBADA", "mbpp": "MBPP", "mmlu": "MMLU", "openbookqa": "OpenBookQA", "piqa": "PIQA",
    "sciq": "SciQ", "siqa": "Social IQa", "social_iqa": "Social IQa", "triviaqa": "TriviaQA",
    "truthfulqa_mc1": "TruthfulQA mc1", "truthfulqa_mc2": "TruthfulQA mc2", "wikitext": "WikiText",
    "winogrande": "WinoGrande",
})  # fmt: skip
"""lm-eval's name -> the one that papers use; any other task keeps its own."""


def metric_name(metric: Metric, metrics: Iterable[Metric]) -> str:
    """`TruthfulQA mc2`, `HellaSwag acc_norm`, `GSM8K exact_match (strict-match)`.

    The metric is named unless it is acc and the only one of its task; what follows a comma in lm-eval's name of it is
    the filter that took the answer out of a text.
    """
    is_alone = sum(other.task == metric.task for other in metrics) == 1
    name, _, filter_name = metric.name.partition(",")
    text = f"{name} ({filter_name})" if filter_name else name
    task = TASKS.get(metric.task, metric.task)
    return task if is_alone and metric.name == "acc" else f"{task} {text}"
