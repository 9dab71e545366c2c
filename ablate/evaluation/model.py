"""The model as lm-eval asks it: the one place that says which class answers the requests."""

from collections.abc import Callable
from typing import Any

from lm_eval.api.model import LM, CacheHook
from lm_eval.models.huggingface import HFLM


class _Heard(CacheHook):  # type: ignore[misc]  # lm-eval has no types
    """lm-eval hands every answer to the model's cache hook the moment it is there: a place to count them."""

    def __init__(self, on_answer: Callable[[], None]) -> None:
        super().__init__(None)
        self._on_answer = on_answer

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        self._on_answer()


def language_model(model: Any, tokenizer: Any, batch_size: int, on_answer: Callable[[], None]) -> LM:
    """-> lm-eval's view of a model on its device; `on_answer` hears of every request answered, and may raise."""
    answering = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    answering.set_cache_hook(_Heard(on_answer))
    return answering
