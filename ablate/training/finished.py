"""The postcondition of a training: reopened from disk before it is committed."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ablate.core.errors import StageError
from ablate.store.job import read_metrics
from ablate.training import adapters
from ablate.training.adapter_file import parse
from ablate.training.merging import FULL_WEIGHTS


def check_training(folder: Path) -> None:
    """Each step is recorded once, in order, and the result loads, has the right shapes and is finite.

    Raises StageError.
    """
    steps = [record["step"] for record in read_metrics(folder / "metrics.jsonl")]
    if not steps or steps != list(range(1, len(steps) + 1)):
        raise StageError(f"{folder}: metrics.jsonl does not have each step once: {len(steps)} records")
    weights = _weights(folder / "out")
    bad = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if bad or not weights:
        raise StageError(f"{folder}: the trained weights are not finite: {', '.join(bad[:4]) or 'there are none'}")


def _weights(out: Path) -> dict[str, Tensor]:
    if not (out / FULL_WEIGHTS).is_file():
        return _adapter(out)
    try:
        weights: dict[str, Tensor] = load_file(out / FULL_WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise StageError(f"{out}: {FULL_WEIGHTS} cannot be read: {error}") from error
    return weights


def _adapter(out: Path) -> dict[str, Tensor]:
    settings, weights = adapters.load(out)
    parse(settings, weights, out)
    return weights
