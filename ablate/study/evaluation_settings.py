"""Which questions are put to the models, and how."""

from typing import Annotated

from pydantic import Field

from ablate.core.values import IDENTITY, INPUT, Bool, Frozen, Int
from ablate.study.field_types import Dtype, OrNone, Positive


class Evaluate(Frozen):
    """The questions put to every model, by lm-eval."""

    tasks: Annotated[tuple[str, ...], IDENTITY, Field(min_length=1)] = (
        "truthfulqa_mc2",
        "hellaswag",
        "commonsense_qa",
    )
    limit: Annotated[Positive | None, OrNone(), IDENTITY] = None
    """The first questions of each task only."""
    num_fewshot: Annotated[Annotated[Int, Field(ge=0)] | None, OrNone(), IDENTITY] = None
    """Examples before each question; the task's own number unless said."""
    batch_size: Annotated[Positive, IDENTITY] = 16
    dtype: Annotated[Dtype | None, IDENTITY] = None
    """Of the merged model; the study's unless said."""
    include_path: Annotated[str | None, INPUT] = None
    """A folder of lm-eval task files of one's own, relative to the study."""
    allow_code: Annotated[Bool, INPUT] = False
    """Let those task files run Python of their own."""
