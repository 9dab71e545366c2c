"""Which rows are trained on, and how they become tokens."""

from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue

from ablate.core.values import EXTENSION, IDENTITY, INPUT, Bool, Frozen, Int, Json
from ablate.study.field_types import OrNone, Positive

COLUMNS: Final = {
    "alpaca": ("instruction", "input", "output"),
    "chat": ("messages", "tools", "system", "prompt", "completion"),
    "text": ("text",),
    "prompt_completion": ("prompt", "completion"),
}
"""The columns that each format of rows has; chat has its turns in messages, or in prompt and completion."""
OPTIONAL: Final = ("input", "system", "tools")
"""Those that may be empty or missing."""
CHAT_READING: Final = 2
"""Counts how chat rows were read so far: 2 knows weights, parts, tools; in the key of chat rows, named by content."""


class Data(Frozen):
    """The training rows, and how they become tokens."""

    source: Annotated[str, INPUT]
    """Hub id; or a json, jsonl, csv, tsv or parquet file, or a folder that save_to_disk made, relative to the study."""
    config: Annotated[str | None, INPUT] = None
    split: Annotated[str, IDENTITY] = "train"
    revision: Annotated[str | None, INPUT] = None
    format: Annotated[Literal["alpaca", "chat", "text", "prompt_completion"], IDENTITY] = "alpaca"
    columns: Annotated[dict[str, str], IDENTITY] = Field(default_factory=dict)
    """Where the columns have other names: {instruction: ..., input: ..., output: ...}, {messages: ...}, {text: ...}."""
    template: Annotated[str, IDENTITY] = "model"
    """model: the student's chat template (plain without one); plain: Alpaca's text and an eos; or a jinja text."""
    chat_template: Annotated[str | None, EXTENSION] = None
    """Which one, where the student's tokenizer has several chat templates by name; `default` unless said."""
    chat_template_kwargs: Annotated[dict[str, JsonValue], EXTENSION] = Field(default_factory=dict)
    """What the student's chat template is told beside the messages, such as {enable_thinking: false}."""
    answers: Annotated[Literal["all", "last"], EXTENSION] = "all"
    """Of a chat without its prompt: every answer is trained, each as the model would be asked, or the last alone."""
    train_on_prompt: Annotated[Bool, IDENTITY] = True
    """Prompt tokens count in the loss."""
    limit: Annotated[Positive | None, OrNone(), IDENTITY] = None
    """The first rows only."""
    max_length: Annotated[Positive | None, OrNone(), IDENTITY] = None
    """Longer rows are cut, counted and told."""
    holdout: Annotated[Annotated[Int, Field(ge=0)], IDENTITY] = 0
    """Rows kept out of training, for held-out losses."""

    def further_identity(self) -> dict[str, Json]:
        return {"chat_reading": CHAT_READING} if self.format == "chat" else {}
