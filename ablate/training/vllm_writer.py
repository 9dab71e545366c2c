"""A teacher's answers written by vLLM, on a card: many texts at a time, with its own rounding and random numbers."""

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ablate.core import disk
from ablate.core.errors import StageError
from ablate.store.job import Job
from ablate.study.answer_settings import Sampling
from ablate.study.vllm_words import INSTEAD, NO_CARD, NOT_INSTALLED
from ablate.training import seeds
from ablate.training.decode_loop import Writer, require_room
from ablate.training.prompts import Answer, Prompt
from ablate.training.quantized import dequantize
from ablate.training.tensor_checks import require_saved

GROUP = 512
"""Answers that are asked for together; a stop waits for them."""
MOST_OF_FREE = 0.9
"""Of the card's free memory: what vLLM may take for weights, keys and values."""
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # no process of its own, that would outlive this one
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_HOST_IP": "127.0.0.1",  # else it looks for a way to the network
}
DTYPES = ("bfloat16", "float16", "float32")


def vllm_for(job: Job, *, is_code_trusted: bool) -> Any:
    """-> the module, where answers are to be written by it; else None. Its version is noted.

    Raises StageError where it cannot write them: told before a model is loaded.
    """
    if job.settings.sampling.writer != "vllm":
        return None
    if job.device != "cuda":
        raise StageError(NO_CARD)
    if (dtype := job.settings.dtype) not in DTYPES:
        raise StageError(f"vLLM computes in {', '.join(DTYPES)}, and dtype is {dtype}: say another, or {INSTEAD}")
    if is_code_trusted:
        raise StageError(f"the teacher brings Python of its own, which vLLM is not given: say {INSTEAD}")
    os.environ.update(ENVIRONMENT)
    try:
        vllm = importlib.import_module("vllm")
    except ImportError as error:
        raise StageError(f"{NOT_INSTALLED} ({error})") from error
    job.notes["writer"] = f"vLLM {vllm.__version__}"
    return vllm


@dataclass(frozen=True, eq=False)
class VllmWriter:
    """Who writes answers, where the recipe says vLLM."""

    vllm: Any
    """The module."""
    reader: Writer
    """The same model in transformers' hands: what is handed over, and told for which answers there is room."""
    scratch: Path
    """Where the model is put for vLLM, as long as it writes."""

    def write(
        self, prompts: Sequence[Prompt], sampling: Sampling, seed: int, after_group: Callable[[Sequence[Answer]], None]
    ) -> None:
        """Writes an answer to each prompt, the longest first; `after_group` hears of those of each group.

        Raises StageError for a prompt that transformers would refuse too, and for what vLLM says against the model.
        """
        require_room(self.reader, prompts, sampling)
        ordered = sorted(prompts, key=lambda prompt: (-len(prompt.ids), prompt.row, prompt.number))
        try:
            engine = self._engine(len(ordered[0].ids) + sampling.max_new_tokens) if ordered else None
            for begin in range(0, len(ordered), GROUP):
                after_group(self._answers(engine, ordered[begin : begin + GROUP], sampling, seed))
        finally:
            disk.remove_tree(self.scratch)

    def _engine(self, most: int) -> Any:
        """-> vLLM with the model in it; `most`: tokens that a text may come to."""
        if not self.reader.is_short(most):
            raise StageError(
                f"texts of up to {most} tokens are longer than this model was first trained on (LongRoPE), where vLLM"
                f" and transformers differ: set data.max_length or sampling.max_new_tokens lower, or say {INSTEAD}"
            )
        self._put_model()
        try:
            return self.vllm.LLM(
                model=str(self.scratch),
                skip_tokenizer_init=True,
                generation_config="vllm",
                dtype=str(self.reader.model.model.dtype).removeprefix("torch."),
                max_model_len=most,
                gpu_memory_utilization=share_of_card(),
            )
        except (OSError, RuntimeError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise StageError(
                f"vLLM {self.vllm.__version__} could not be started with this teacher ({error}): give it a card with"
                f" more free memory if it lacks that, or say {INSTEAD}"
            ) from error

    def _put_model(self) -> None:
        """The weights that evaluation and the distillation read too, adapters merged and rounded once.

        The embedding and the head end with the tokenizer's last token: no token beyond is drawn.
        """
        from transformers import GenerationConfig

        model, vocabulary = self.reader.model.model, self.reader.model.head.vocabulary
        if model.get_input_embeddings().weight.shape[0] > vocabulary:
            model.resize_token_embeddings(vocabulary)
        dequantize(model)
        model.generation_config = GenerationConfig()  # some cannot be saved; what counts is said with each prompt
        model.save_pretrained(self.scratch)
        require_saved(model, self.scratch)

    def _answers(self, engine: Any, group: Sequence[Prompt], sampling: Sampling, seed: int) -> list[Answer]:
        asked = [{"prompt_token_ids": list(prompt.ids)} for prompt in group]
        params = [self._params(sampling, seed_of(seed, prompt)) for prompt in group]
        outputs = engine.generate(asked, params, use_tqdm=False)
        return [self._answer(*pair, sampling.max_new_tokens) for pair in zip(group, outputs, strict=True)]

    def _params(self, sampling: Sampling, seed: int) -> Any:
        return self.vllm.SamplingParams(
            n=1,
            seed=seed,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=sampling.max_new_tokens,
            stop_token_ids=sorted(self.reader.ends),
            ignore_eos=True,  # it may know others; all that we know are among those to stop at
            detokenize=False,
            logprobs=0,  # the drawn token's alone, at temperature 1
        )

    def _answer(self, prompt: Prompt, output: Any, most: int) -> Answer:
        (written,) = output.outputs
        ids = tuple(written.token_ids)
        ends = [token in self.reader.ends for token in ids]
        is_whole = bool(ids) and not any(ends[:-1]) and (ends[-1] or len(ids) == most)
        if tuple(output.prompt_token_ids) != prompt.ids or not is_whole:
            why = f"{len(ids)} tokens, finished by {written.finish_reason!r}"
            raise StageError(f"vLLM gave row {prompt.row} an answer that is not what was asked for ({why})")
        return Answer(prompt, ids, ends[-1], written.cumulative_logprob / len(ids))


def seed_of(seed: int, prompt: Prompt) -> int:
    """-> 63 bits: a function of the seed, the row, and which of its answers it is."""
    return seeds.seed_of(f"ablate/vllm/{seed}/{prompt.row}/{prompt.number}")


def share_of_card() -> float:
    """-> of the card's whole memory: what this stage may take of it, and of what is free."""
    free, total = torch.cuda.mem_get_info()
    return min(torch.cuda.get_per_process_memory_fraction(), MOST_OF_FREE * free / total)
