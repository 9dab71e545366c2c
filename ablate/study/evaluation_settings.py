"""Which questions are put to the models, and how."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from ablate.core.values import EXTENSION, IDENTITY, INPUT, RUNTIME, Bool, Cards, Frozen, Int
from ablate.study.asked_task import (
    FEWSHOT_SEED,
    AskedTask,
    ChatTemplate,
    Generation,
    Limit,
    Metric,
    Seed,
    Task,
    shortest,
    some,
)
from ablate.study.asked_task import task_name as name_of
from ablate.study.field_types import Dtype, OrNone, Positive


class Asking(NamedTuple):
    """How one task is put to a model, nothing left to look up."""

    num_fewshot: int | None
    """None: the task's own number, or 0."""
    is_own_shots: bool
    """Whether it was said of this task alone, so that it holds where the task's file says 0 too."""
    limit: int | float | None
    gen_kwargs: dict[str, Any]
    fewshot_seed: int
    apply_chat_template: bool | str
    fewshot_as_multiturn: bool
    system_instruction: str | None
    metric_list: tuple[Metric, ...] | None


class Evaluate(Frozen):
    """The questions put to every model, by lm-eval."""

    tasks: Annotated[tuple[Task, ...], IDENTITY, BeforeValidator(some), Field(json_schema_extra={"minItems": 1})] = (
        "truthfulqa_mc2",
        "hellaswag",
        "commonsense_qa",
    )
    """Tasks, groups and tags of lm-eval; {task: hellaswag, num_fewshot: 5, limit: 100} asks one otherwise."""
    limit: Annotated[Limit | None, OrNone(), IDENTITY] = None
    """The first questions of each task only; below 1 a part of them, rounded up: 0.1 asks a tenth."""
    num_fewshot: Annotated[Annotated[Int, Field(ge=0)] | None, OrNone(), IDENTITY] = None
    """Examples before each question; the task's own number unless said."""
    batch_size: Annotated[Positive, IDENTITY] = 16
    dtype: Annotated[Dtype | None, IDENTITY] = None
    """Of the merged model; the study's unless said."""
    include_path: Annotated[str | None, INPUT] = None
    """A folder of lm-eval task files of one's own, relative to the study."""
    allow_code: Annotated[Bool, INPUT] = False
    """Let those task files run Python of their own."""
    apply_chat_template: Annotated[ChatTemplate, EXTENSION] = False
    """Ask in the words of the model's chat template; a name chooses one of several."""
    fewshot_as_multiturn: Annotated[Bool | None, OrNone(), EXTENSION] = None
    """Examples are earlier turns of the chat, not part of one; true unless said, with a chat template."""
    system_instruction: Annotated[Annotated[str, Field(min_length=1)] | None, OrNone(), EXTENSION] = None
    """Said before everything else; the system's turn, with a chat template."""
    gen_kwargs: Annotated[Generation, EXTENSION] = Field(default_factory=dict)
    """How answers are generated, over what tasks say themselves: {temperature: 0.7, do_sample: true}."""
    fewshot_seed: Annotated[Seed, EXTENSION] = FEWSHOT_SEED
    """Of the choice of examples."""
    cards: Annotated[Cards, RUNTIME] = "auto"
    """So many cards of one machine share the requests, to the same result; auto: as many as hold the model, or as
    shorten the study.
    Without cards, so many processes."""

    @model_validator(mode="after")
    def _turns_need_a_chat(self) -> "Evaluate":
        """As lm-eval's command line has it. Raises ValueError."""
        for name in self.task_names:
            asked = self.asking(name)
            if asked.fewshot_as_multiturn and not asked.apply_chat_template:
                raise ValueError(
                    "fewshot_as_multiturn: true makes examples turns of a chat, which needs apply_chat_template: true"
                    f" ({name} is asked without)"
                )
        return self

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(name_of(task) for task in self.tasks)

    def asking(self, name: str) -> Asking:
        """-> how one of the tasks is put to a model."""
        own = next((task for task in self.tasks if isinstance(task, AskedTask) and task.task == name), None)
        own = own or AskedTask(task=name)
        template = _first(own.apply_chat_template, self.apply_chat_template)
        return Asking(
            num_fewshot=_without_none(_first(own.num_fewshot, self.num_fewshot)),
            is_own_shots=own.num_fewshot not in (None, "none"),
            limit=_without_none(_first(own.limit, self.limit)),
            gen_kwargs=self.gen_kwargs | (own.gen_kwargs or {}),
            fewshot_seed=_first(own.fewshot_seed, self.fewshot_seed),
            apply_chat_template=template,
            fewshot_as_multiturn=bool(_first(own.fewshot_as_multiturn, self.fewshot_as_multiturn, template)),
            system_instruction=_first(own.system_instruction, self.system_instruction) or None,
            metric_list=own.metric_list,
        )

    def shortest(self) -> "Evaluate":
        """-> the recipe without what it says in vain, so that one way of asking has one key."""
        recipe = self
        for shorter in (lambda one: one._with(fewshot_as_multiturn=None), *self._shorter_tasks()):
            candidate = shorter(recipe)
            if all(candidate.asking(name) == self.asking(name) for name in self.task_names):
                recipe = candidate
        return recipe

    def _shorter_tasks(self) -> Iterator[Callable[["Evaluate"], "Evaluate"]]:
        for number, task in enumerate(self.tasks):
            for field in task.model_dump() if isinstance(task, AskedTask) else ():
                if field != "task":
                    yield partial(Evaluate._without, number=number, field=field)

    def _without(self, number: int, field: str) -> "Evaluate":
        task = self.tasks[number]
        assert isinstance(task, AskedTask)
        shorter = shortest(task.model_copy(update={field: None}))
        return self._with(tasks=(*self.tasks[:number], shorter, *self.tasks[number + 1 :]))

    def _with(self, **changes: Any) -> "Evaluate":
        return self.model_copy(update=changes)


def _first(*values: Any) -> Any:
    """-> the first that says anything."""
    return next((value for value in values if value is not None), None)


def _without_none(value: Any) -> Any:
    return None if value == "none" else value
