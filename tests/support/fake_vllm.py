"""What stands for vLLM where there is no card: the part of its interface that is used, over transformers.

Names and defaults as in vLLM 0.33 (entrypoints/llm.py, sampling_params.py, outputs.py).
"""

import importlib.machinery
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import torch
import transformers

VERSION = "0.33.0"


@dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    logprobs: int | None = None
    detokenize: bool = True


class LLM:
    """One at a time, as on a card."""

    def __init__(
        self,
        model: str,
        *,
        skip_tokenizer_init: bool = False,
        dtype: str = "auto",
        gpu_memory_utilization: float = 0.92,
        generation_config: str = "auto",
        max_model_len: int | None = None,
    ) -> None:
        self._model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self.settings = (skip_tokenizer_init, generation_config, max_model_len, gpu_memory_utilization)
        FAKE.engines.append(self)

    def generate(self, prompts, sampling_params, *, use_tqdm=True):
        pairs = list(zip(prompts, sampling_params, strict=True))
        FAKE.asked.extend(pairs)
        return [self._output(prompt["prompt_token_ids"], params) for prompt, params in pairs]

    @torch.no_grad()
    def _output(self, prompt, params):
        generator, ids, logprob = torch.Generator().manual_seed(params.seed), [], 0.0
        while len(ids) < params.max_tokens and not {*ids[-1:]} & {*params.stop_token_ids}:
            logits = self._model(input_ids=torch.tensor([prompt + ids])).logits[0, -1].float()
            ids.append(int(self._drawn(logits, params.temperature, generator)))
            logprob += float(logits.log_softmax(0)[ids[-1]])
        reason = "stop" if ids[-1] in params.stop_token_ids else "length"
        one = SimpleNamespace(token_ids=ids, cumulative_logprob=logprob, finish_reason=reason)
        FAKE.written.append(ids)
        return SimpleNamespace(prompt_token_ids=prompt, outputs=[one])

    def _drawn(self, logits, temperature, generator):
        if temperature == 0:
            return logits.argmax()
        return (logits / temperature).softmax(0).multinomial(1, generator=generator)


def installed(monkeypatch) -> ModuleType:
    """-> the module, as if it were installed: `engines` made, (prompt, params) `asked`, tokens `written`."""
    FAKE.engines, FAKE.asked, FAKE.written = [], [], []
    monkeypatch.setitem(sys.modules, "vllm", FAKE)
    return FAKE


FAKE = ModuleType("vllm")
FAKE.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
FAKE.__version__, FAKE.LLM, FAKE.SamplingParams = VERSION, LLM, SamplingParams
