"""The model as lm-eval asks it: what requests share is run once; other kinds of requests go lm-eval's own way."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from jinja2 import TemplateError
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs

from ablate.core.errors import StageError
from ablate.core.failures import ending_of
from ablate.evaluation.encoding import Encoded, encode
from ablate.evaluation.forest_scorer import ForestScorer, Response
from ablate.evaluation.trees import Forest, Request, build_forest
from ablate.evaluation.written_texts import NamedText, WrittenTexts, is_drawn
from ablate.study.chat_templates import DEFAULT, TODAY, dated, lacking, unheard
from ablate.training import batches
from ablate.training.batches import ModelInputs
from ablate.training.card_room import asked_memory, forward_budget
from ablate.training.model_parts import ModelParts, split_model
from ablate.training.ranks import ONE, Ranks

T = TypeVar("T")

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Of a log-likelihood, times 1 + the root of its tokens: the same ones, beside others or alone."""
ATTENTION = frozenset({"attention", "full_attention", "sliding_attention", "chunked_attention"})
"""Sorts of layers in which a mask holds requests apart."""


class Listener(Protocol):
    """Who asks."""

    def known_responses(self) -> Mapping[int, Response]:
        """-> those of the task at hand that an earlier attempt came to, by number of the request."""

    def on_responses(self, responses: Mapping[int, Response]) -> None:
        """Of requests answered. May raise Interrupted."""

    def on_texts(self, texts: Sequence[NamedText]) -> None:
        """Of a batch of texts that was written. May raise Interrupted."""

    def on_lm_eval_response(self) -> None:
        """Of one request that lm-eval's own class answered. May raise Interrupted."""

    def note(self, name: str, what: str) -> None:
        """Of something that a reader of the result may want to know."""


class _CountingHook(CacheHook):  # type: ignore[misc]  # lm-eval has no types
    """lm-eval hands every answer to the model's cache hook the moment it is there: a place to count them."""

    def __init__(self, listener: Listener, written: WrittenTexts) -> None:
        super().__init__(None)
        self._listener = listener
        self.written = written

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        if attr != "generate_until":
            self._listener.on_lm_eval_response()
        elif batch := self.written.add(req, res):
            self._listener.on_texts(batch)


class SharingLM(HFLM):  # type: ignore[misc]  # lm-eval has no types
    """HFLM's answers, with the tokens that requests share forwarded once."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        batch_size: int,
        listener: Listener,
        tokens: Path | None = None,
        ranks: Ranks = ONE,
    ) -> None:
        """`tokens`: a folder for those of requests, shared with other models; `ranks` share the requests."""
        today = {"date_string": TODAY.strftime("%d %b %Y")}
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, chat_template_args=today)
        self.written = WrittenTexts(self.tokenizer, _end_ids(model, tokenizer))
        self.set_cache_hook(_CountingHook(listener, self.written))
        self._listener = listener
        self._tokens = tokens
        self._ranks = ranks
        self._templates: str | Mapping[str, str] | None = tokenizer.chat_template

    def use_template(self, asked: bool | str, instruction: str | None = None) -> None:
        """Chooses among the model's chat templates, which lm-eval's command line only writes down.

        A template that asks for the date gets the same one on every day. `instruction`: what a study has said in the
        system's turn. Raises StageError where there is no such template, or it does not hand that on.
        """
        templates = {DEFAULT: self._templates} if isinstance(self._templates, str) else dict(self._templates or {})
        if why := lacking(templates, asked):
            raise StageError(f"evaluate.apply_chat_template: the model {why}")
        if asked:
            self.tokenizer.chat_template = dated(templates[DEFAULT if asked is True else asked])
            if instruction and (why := unheard(self.tokenizer, instruction)):
                raise StageError(f"evaluate.system_instruction: the model's chat template {why}")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """As lm-eval's, which leaves out a task's description where a template refuses a system's turn: noted.

        Raises StageError.
        """
        try:
            return self._rendered(chat_history, add_generation_prompt)
        except TemplateError as error:
            others = [turn for turn in chat_history if turn["role"] != "system"]
            if len(others) == len(chat_history):
                raise StageError(f"evaluate.apply_chat_template: the model's chat template refuses: {error}") from error
            self._listener.note("the task's description left out", f"the chat template refuses it: {error}")
            return self.apply_chat_template(others, add_generation_prompt)

    def _rendered(self, chat_history: list[dict[str, str]], add_generation_prompt: bool) -> str:
        is_open = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
        }
        text: str = self.tokenizer.apply_chat_template(
            chat_history, tokenize=False, **is_open, **self.chat_template_args
        )
        return text

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        encoded = encode(self, [request.args for request in requests], self._tokens)
        responses = self._shared(encoded) if encoded else None
        return responses or self._spread(requests, super().loglikelihood)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        return self._spread(requests, super().loglikelihood_rolling)

    def _spread(self, requests: Sequence[Any], ask: Callable[..., list[T]]) -> list[T]:
        """-> what lm-eval's own class answers, each rank some of the requests, in its own batches."""
        size = self._ranks.size
        parts = [requests[rank::size] for rank in range(size)]
        answers = self._ranks.spread(parts, lambda part: ask(part, disable_tqdm=True) if part else [])
        return [answers[number % size][number // size] for number in range(len(requests))]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """As lm-eval's, in batches, but for what is known; notes of how many prompts the end alone is forwarded.

        Whole batches are known, and of the longest prompts first: those that are left are put together as they were.
        """
        room = (self.max_length - self._most_new_tokens(request.args[1]) for request in requests)
        lengths = (len(self.tok_encode(request.args[0])) for request in requests)
        if num_cut := sum(length > most for length, most in zip(lengths, room, strict=True)):
            what = f"{num_cut} of {len(requests)} prompts, to leave room for their answers"
            self._listener.note("cut from the left", what)
        known = [self.written.recall(request.args) for request in requests]
        rest = [request for request, text in zip(requests, known, strict=True) if text is None]
        if self._ranks.size == 1 or any(is_drawn(request.args[1]) for request in rest):  # by each rank, alike
            texts = iter(super().generate_until(rest, disable_tqdm=True) if rest else [])
            return [next(texts) if text is None else text for text in known]
        self._write_shared(rest, super().generate_until)
        return [
            self.written.recall(request.args) or "" if text is None else text
            for request, text in zip(requests, known, strict=True)
        ]

    def _write_shared(self, requests: Sequence[Any], ask: Callable[..., list[str]]) -> None:
        """Each rank has some of lm-eval's batches written, as they would be by one; all know of all texts then."""
        for texts in self._ranks.rounds(self._batches(requests), lambda batch: self._written_batch(batch, ask)):
            self.written.know(texts)
            self._listener.on_texts(texts)

    def _batches(self, requests: Sequence[Any]) -> list[list[Any]]:
        """-> the requests that lm-eval's class puts together: of the same settings, the longest prompts first."""
        by_settings: dict[str, list[Any]] = {}
        for request in requests:
            by_settings.setdefault(str(request.args[1]), []).append(request)
        size = self.batch_size_per_gpu
        batches = []
        for alike in by_settings.values():
            alike.sort(key=lambda request: (-len(self.tok_encode(request.args[0])), request.args[0]))
            batches += [alike[begin : begin + size] for begin in range(0, len(alike), size)]
        return batches

    def _written_batch(self, batch: Sequence[Any], ask: Callable[..., list[str]]) -> list[NamedText]:
        with self.written.kept_apart() as texts:
            ask(batch, disable_tqdm=True)
        return texts

    def _most_new_tokens(self, settings: Mapping[str, Any]) -> int:
        return int(normalize_gen_kwargs(dict(settings), self.max_gen_toks)["max_gen_toks"])

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **how: Any) -> torch.Tensor:
        """As lm-eval's, which does not say which texts had come to their end."""
        ids_BT: torch.Tensor = super()._model_generate(context, max_length, stop, **how)
        self.written.expect(ids_BT[:, context.shape[1] :], stop)
        return ids_BT

    def _shared(self, encoded: Encoded) -> list[tuple[float, bool]] | None:
        """-> responses by trees, where the model takes them."""
        if encoded.num_cut:
            what = f"{encoded.num_cut} of {len(encoded.requests)} requests, at {self.max_length} tokens"
            self._listener.note("cut from the left", what)
        forest = build_forest(encoded.requests)
        scorer = self._proven_scorer(forest, encoded.requests)
        if scorer is None:
            return None
        answered = dict(self._listener.known_responses())
        continuations = [request.continuation for request in encoded.requests]
        for responses in scorer.responses(forest, continuations, set(answered), self._ranks):
            answered |= responses
            self._listener.on_responses(responses)
        if scorer.num_too_many < math.inf:
            self._listener.note("out of memory", f"micro-batches of {scorer.num_too_many} tokens halved")
        return [answered[number] for number in range(len(encoded.requests))]

    def _proven_scorer(self, forest: Forest, requests: Sequence[Request]) -> ForestScorer | None:
        """-> what scores by trees, proven on the hardest ones before it is trusted, by every rank."""
        scorer = self._scorer(forest, requests)
        return scorer if all(self._ranks.gather(scorer is not None)) else None

    def _scorer(self, forest: Forest, requests: Sequence[Request]) -> ForestScorer | None:
        try:
            parts = split_model(self.model, _head_size(self.model))
            scorer = ForestScorer(parts, _budget(parts, str(self.device), forest), str(self.device))
            _require_equal_alone(scorer, forest.hardest(), requests)
        except (StageError, RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
            ending = ending_of(error)
            if ending.failure == "oom":
                raise
            why = f"{type(self.model).__name__} takes no tree of requests: {ending.message}"
            self._listener.note("nothing was shared", why)
            return None
        return scorer


def _budget(parts: ModelParts, device: str, forest: Forest) -> int:
    """-> tokens forwarded at once: as many of the widest trees as there is memory for."""
    memory, trees = asked_memory(parts, "scores"), cache(lambda: forest.held)  # looked at on a card alone
    needed = (lambda tokens: memory.of_trees(tokens, trees())) if memory else None
    return forward_budget(device, len(forest.trees[0]), needed, batches.CPU_BUDGET)


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """-> the tokens at which `generate` ends a text."""
    named = getattr(model.generation_config, "eos_token_id", None)
    several = named if isinstance(named, list | tuple) else [named]
    return frozenset(one for one in (*several, tokenizer.eos_token_id) if one is not None)


def _head_size(model: Any) -> int:
    head = model.get_output_embeddings()
    return int(head.weight.shape[0]) if head is not None else int(model.config.get_text_config().vocab_size)


def _require_equal_alone(scorer: ForestScorer, forest: Forest, requests: Sequence[Request]) -> None:
    """Raises StageError where requests get another log-likelihood in trees than alone."""
    model = scorer.model.model
    _require_attention(model)
    longest, window = max(len(request.ids) for request in requests), _window(model.config.get_text_config())
    if any(longest > border for border in scorer.model.cutting.borders):
        raise StageError("its rotary frequencies depend on the longest request beside")
    if longest > window:
        raise StageError(f"its layers see {window} tokens back, and a request has {longest}")
    together: dict[int, Response] = {}
    for responses in scorer.responses(forest, [request.continuation for request in requests]):
        together |= responses
    for number in {number for tree in forest.trees for number in (tree.requests[0], tree.requests[-1])}:
        beside, alone = together[number].loglikelihood, _loglikelihood_alone(scorer, requests[number])
        if not abs(beside - alone) <= TOLERANCE[model.dtype] * (1 + math.sqrt(len(requests[number].continuation))):
            raise StageError(f"a log-likelihood is {alone:.6g}, and {beside:.6g} in a tree of requests")


def _require_attention(model: Any) -> None:
    """Raises StageError where tokens reach each other past a mask, or by their place in the row.

    Told by the configuration: what leaks can be as small as 16-bit rounding is, so that no comparison tells it.
    """
    config = model.config.get_text_config()
    others = sorted(set(getattr(config, "layer_types", None) or ()) - ATTENTION)
    has_alibi = any(getattr(part, "alibi", False) for part in (config, getattr(config, "attn_config", None)))
    if getattr(model, "_is_stateful", False) or others:
        raise StageError(f"its layers carry a state from token to token{': ' * bool(others)}{', '.join(others)}")
    if has_alibi or config.model_type == "bloom":
        raise StageError("its attention counts distances in the row (ALiBi)")


def _window(config: Any) -> float:
    """-> how many tokens back some layer sees; its own mask is not made where one is given."""
    sizes = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size", "window_size"))
    return min((size for size in sizes if isinstance(size, int)), default=math.inf)


@torch.no_grad()
def _loglikelihood_alone(scorer: ForestScorer, request: Request) -> float:
    """-> the log-likelihood by a plain forward pass."""
    ids_1T = torch.tensor([request.ids], device=scorer.device)
    positions_S = torch.arange(request.num_context, len(request.ids), device=scorer.device)
    scores = scorer.token_scores(
        scorer.model.hidden(ModelInputs(ids_1T, positions_S)),
        torch.arange(len(positions_S)),
        torch.tensor(request.continuation),
    )
    return float(scores.logprob_S.sum())
