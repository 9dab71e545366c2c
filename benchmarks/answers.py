"""Answers written by ablate and by transformers' generate, in turns: `python -m benchmarks.answers`.

The same model and prompts, sampled at temperature 1 from the whole vocabulary; no answer ends before its last token. A
round is all prompts once: ablate together, transformers together and in batches of 4, as a trainer with a micro-batch
of 4 does. With an adapter, transformers runs it by peft. CPU seconds of this process, one thread.
"""

import argparse
import random
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ablate.study.answer_settings import Sampling
from ablate.study.training_recipes import Train
from ablate.training import trainable
from ablate.training.adapters import Origin
from ablate.training.decode_loop import Writer, write_answers
from ablate.training.model_parts import split_model
from ablate.training.prompts import Prompt
from ablate.training.token_draws import Draws
from benchmarks import models, table
from benchmarks.measure import Meter
from benchmarks.setup import LORA_ALPHA, LORA_RANK, TARGETS

SHORTEST, LONGEST = 20, 80
"""Tokens of a prompt."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answers", description=__doc__)
    parser.add_argument("--model", type=models.Size.parse, default=models.Size(5, 320), metavar="LAYERSxWIDTH")
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--adapter", action="store_true", help="with LoRA, as a student has it in its training")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    contenders = _contenders(options)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    meter = Meter("cpu")
    for number in range(options.rounds + 1):
        for name, write in contenders.items():
            took = meter.measure(write).seconds
            if number:  # the first round warms up
                seconds[name].append(took)
    print(_table(options, seconds))


def _contenders(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    prompts = _prompts(options)
    ours, theirs = (_model(options) for _ in range(2))
    if options.adapter:
        lora = {"rank": LORA_RANK, "alpha": LORA_ALPHA, "target_modules": list(TARGETS)}
        trainable.make_trainable(ours, Train.model_validate({"lora": lora}), 0, Origin())
        config = LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=list(TARGETS), task_type="CAUSAL_LM")
        theirs = get_peft_model(theirs, config)
    writer, sampling = (
        Writer(split_model(ours, options.vocabulary), frozenset()),
        Sampling(max_new_tokens=options.tokens),
    )

    def generate(num: int) -> None:
        for begin in range(0, len(prompts), num):
            _generate(theirs, prompts[begin : begin + num], options.tokens)

    return {
        "ablate": lambda: void(write_answers(writer, prompts, sampling, Draws(0, 1))),
        "transformers": lambda: generate(len(prompts)),
        "transformers, 4 at a time": lambda: generate(4),
    }


def void(_: object) -> None:
    """What is measured gives nothing back."""


def _model(options: argparse.Namespace) -> Any:
    torch.manual_seed(0)
    config = models.config(options.model, options.vocabulary, 4.0, 32.0, is_tied=True)
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def _prompts(options: argparse.Namespace) -> list[Prompt]:
    dice = random.Random(0)
    lengths = [dice.randint(SHORTEST, LONGEST) for _ in range(options.prompts)]
    return [
        Prompt(row, 0, tuple(dice.randrange(options.vocabulary) for _ in range(length)))
        for row, length in enumerate(lengths)
    ]


def _generate(model: Any, prompts: list[Prompt], num: int) -> None:
    width = max(len(prompt.ids) for prompt in prompts)
    pads = [width - len(prompt.ids) for prompt in prompts]
    ids_BT = torch.tensor([[0] * pad + list(prompt.ids) for pad, prompt in zip(pads, prompts, strict=True)])
    mask_BT = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads])
    model.generate(
        input_ids=ids_BT, attention_mask=mask_BT, max_new_tokens=num, do_sample=True, top_k=0, pad_token_id=0,
        eos_token_id=None,
    )  # fmt: skip


def _table(options: argparse.Namespace, seconds: dict[str, list[float]]) -> str:
    num_tokens = options.prompts * options.tokens
    rows = [
        [name, f"{median(took):.2f}", f"{num_tokens / median(took):.0f}", table.ratio(took, seconds["ablate"])]
        for name, took in seconds.items()
    ]
    return table.markdown(["contender", "CPU seconds", "tokens a second", "/ ablate"], rows)


if __name__ == "__main__":
    main()
