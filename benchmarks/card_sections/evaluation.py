"""An evaluation's tokens a second, by ablate's class and by lm-eval's own, in turns."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from ablate.example import assets
from benchmarks import table
from benchmarks.answerer import Answered, Answerer, Setup
from benchmarks.card_sections import training_steps
from benchmarks.card_sections.sizes import Card

TASK = "tiny_endings"
BATCH_SIZES = (16, 64)
"""Of lm-eval's class: the faster one is compared."""
NUM_ROUNDS = 3


def measure(card: Card) -> dict[str, Any]:
    folder = Path(card.scratch) / "evaluated"
    tokenizer = AutoTokenizer.from_pretrained(assets() / "models" / "student", local_files_only=True)
    config = card.config("student")
    config.vocab_size = max(config.vocab_size, len(tokenizer))
    training_steps.model_of(card, config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    answerer = Answerer(Setup(str(folder), TASK, {}, card.num_questions, card.dtype, card.device))
    sizes = BATCH_SIZES[:1] if card.is_cpu else BATCH_SIZES
    best = min(sizes, key=lambda size: answerer.answer(size).seconds)
    answerer.answer(None)
    rounds = [(answerer.answer(best), answerer.answer(None)) for _ in range(1 if card.is_cpu else NUM_ROUNDS)]
    theirs, ours = zip(*rounds, strict=True)
    real = min(theirs[0].forwarded, ours[0].forwarded)
    return {
        "batch_size": best,
        "num_requests": len(ours[0].answers),
        "lm-eval": _record(theirs),
        "ablate": _record(ours),
        "real_tokens": real,
        "largest_difference": max(abs(a[0] - b[0]) for a, b in zip(theirs[0].answers, ours[0].answers, strict=True)),
    }


def _record(rounds: Sequence[Answered]) -> dict[str, Any]:
    return {"seconds": [one.seconds for one in rounds], "forwarded": rounds[0].forwarded, "peak": rounds[0].peak}


def show(measured: dict[str, Any]) -> str:
    ours, theirs = measured["ablate"]["seconds"], measured["lm-eval"]["seconds"]
    rows = [
        [name, str(one["forwarded"]), f"{min(one['seconds']):.3g}", f"{one['forwarded'] / min(one['seconds']):,.0f}"]
        for name, one in ((name, measured[name]) for name in ("lm-eval", "ablate"))
    ]
    text = table.markdown(["class", "tokens forwarded", "s", "tokens / s"], rows)
    return text + (
        f"\n{measured['num_requests']} requests, lm-eval at batch size {measured['batch_size']}; seconds less by "
        f"{table.ratio(theirs, ours)}; largest difference of a log-likelihood {measured['largest_difference']:.1e}\n"
    )
