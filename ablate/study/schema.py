"""The study file as values: what every field means, its default, and whether results depend on it."""

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from ablate.core.values import IDENTITY, INPUT, RUNTIME, Bool, Frozen, Int, Num
from ablate.losses import Loss, parse
from ablate.study.layer import Layer, OfARun

Dtype: TypeAlias = Literal["bfloat16", "float16", "float32", "float64"]
Slug: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Positive: TypeAlias = Annotated[Int, Field(gt=0)]
Beta: TypeAlias = Annotated[Num, Field(ge=0, lt=1)]
Seed: TypeAlias = Annotated[Int, Field(ge=0, lt=2**32)]
Axis: TypeAlias = Annotated[tuple[Any, ...], Field(min_length=1)]


class Lora(Frozen):
    """Low-rank adapters (Hu et al. 2021, 2106.09685): W + alpha/rank B A."""

    rank: Annotated[Positive, IDENTITY] = 64
    alpha: Annotated[Num, IDENTITY, Field(gt=0)] = 128.0
    dropout: Annotated[Num, IDENTITY, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[tuple[str, ...], IDENTITY, Field(min_length=1)] = (
        "down_proj",
        "gate_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    )
    """Last parts of the names of the linear modules that get an adapter."""

    @model_validator(mode="before")
    @classmethod
    def _in_one_order(cls, value: Any) -> Any:
        # the order and repetition of names adapt the same modules: one spelling, one key
        if isinstance(value, dict) and isinstance(value.get("target_modules"), list | tuple):
            return value | {"target_modules": sorted(set(map(str, value["target_modules"])))}
        return value


class AdamW(Frozen):
    """AdamW (Loshchilov, Hutter 2019, 1711.05101)."""

    name: Annotated[Literal["adamw"], IDENTITY] = "adamw"
    weight_decay: Annotated[Num, IDENTITY, Field(ge=0)] = 0.01
    betas: Annotated[tuple[Beta, Beta], IDENTITY] = (0.9, 0.999)
    eps: Annotated[Num, IDENTITY, Field(gt=0)] = 1e-8


class OrNone:
    """Lets a field that may be missing be written `none`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_none, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), {"const": "none"}]}


def _none(value: Any) -> Any:
    return None if value == "none" else value


def is_number_of_steps(max_steps: Any) -> bool:
    """Whether max_steps says how long a training is."""
    return _none(max_steps) is not None


def with_one_length(training: dict[str, Any]) -> dict[str, Any]:
    """max_steps decides alone, so that epochs beside it cannot make two keys of one training."""
    if is_number_of_steps(training.get("max_steps")):
        return training | {"epochs": None}
    if training.get("epochs", 1) is None:
        raise ValueError("a training needs epochs or max_steps, and both are none")
    return training


def with_one_scale(distillation: dict[str, Any]) -> dict[str, Any]:
    """A temperature of 1 scales nothing by its square, so that scale_by_t2 beside it cannot make two keys."""
    is_scaled = distillation.get("scale_by_t2") is True and distillation.get("temperature", 1) == 1
    return distillation | {"scale_by_t2": False} if is_scaled else distillation


class Train(Frozen):
    """What fine-tuning and distillation share."""

    epochs: Annotated[Annotated[Int, Field(gt=0)] | None, IDENTITY] = 1
    """Passes over the rows; none where max_steps is said."""
    max_steps: Annotated[Annotated[Int, Field(gt=0)] | None, OrNone(), IDENTITY] = None
    """Optimizer steps, over as many passes as they need."""
    batch_size: Annotated[Positive, IDENTITY] = 16
    """Rows an optimizer step; how they are cut into micro-batches is the engine's affair."""
    lr: Annotated[Num, IDENTITY, Field(gt=0)] = 3e-4
    """Peak learning rate."""
    schedule: Annotated[Literal["cosine", "linear", "constant"], IDENTITY] = "cosine"
    warmup_steps: Annotated[Annotated[Int, Field(ge=0)], IDENTITY] = 100
    optimizer: Annotated[AdamW, IDENTITY] = AdamW()
    max_grad_norm: Annotated[Annotated[Num, Field(gt=0)] | None, OrNone(), IDENTITY] = None
    """Clip the norm of the whole gradient to this; none: no clipping."""
    drop_last: Annotated[Bool, IDENTITY] = True
    """Leave out a last, partial batch (never the only one)."""
    lora: Annotated[Lora | None, OrNone(), IDENTITY] = Lora()
    """none trains every weight."""
    micro_batch_tokens: Annotated[Positive | None, RUNTIME] = None
    """Most tokens forwarded at once; found for the device unless said."""
    checkpoint_every_s: Annotated[Num, RUNTIME, Field(gt=0)] = 300.0
    """Seconds between two checkpoints."""
    gradient_checkpointing: Annotated[Bool, RUNTIME] = False
    """Recompute activations in the backward pass: less memory, more time, the same result."""

    @model_validator(mode="before")
    @classmethod
    def _steps_or_epochs(cls, value: Any) -> Any:
        return with_one_length(value) if isinstance(value, dict) else value


class Finetune(Train):
    """Fine-tuning: the class loss (cross-entropy) alone."""


class Distill(Train):
    """Distillation: (1 - kd_ratio) class loss + kd_ratio KD loss."""

    pair: Annotated[str | None, INPUT] = None
    """Which pair; the first one unless said."""
    teacher: Annotated[Literal["baseline", "finetuned"], INPUT] = "finetuned"
    student: Annotated[Literal["baseline", "finetuned"], INPUT] = "baseline"
    kd_ratio: Annotated[Num, IDENTITY, Field(ge=0, le=1)] = 0.5
    """0: class loss alone; 1: KD loss alone."""
    loss: Annotated[
        Loss,
        BeforeValidator(parse, json_schema_input_type=str | dict[str, Any]),
        IDENTITY,
    ] = Field(default_factory=lambda: parse("forward_kl"))
    """A name, or {name: jsd, beta: 0.5}."""
    temperature: Annotated[Num, IDENTITY, Field(gt=0)] = 1.0
    """Divides the logits of teacher and student."""
    scale_by_t2: Annotated[Bool, IDENTITY] = False
    """Multiply the KD loss by the square of the temperature."""
    teacher_cache: Annotated[Literal["auto", "vector", "hidden", "none"], RUNTIME] = "auto"
    """How the teacher's answers are kept: how, not what."""

    @model_validator(mode="before")
    @classmethod
    def _scaled_by_more_than_1(cls, value: Any) -> Any:
        return with_one_scale(value) if isinstance(value, dict) else value


COLUMNS: Final = {"alpaca": ("instruction", "input", "output"), "chat": ("messages",), "text": ("text",)}
"""The columns that each format of rows has."""


class Data(Frozen):
    """The training rows, and how they become tokens."""

    source: Annotated[str, INPUT]
    """Hub id, or a json, jsonl, csv or parquet file relative to the study."""
    config: Annotated[str | None, INPUT] = None
    split: Annotated[str, IDENTITY] = "train"
    revision: Annotated[str | None, INPUT] = None
    format: Annotated[Literal["alpaca", "chat", "text"], IDENTITY] = "alpaca"
    columns: Annotated[dict[str, str], IDENTITY] = Field(default_factory=dict)
    """Where the columns have other names: {instruction: ..., input: ..., output: ...}, {messages: ...}, {text: ...}."""
    template: Annotated[str, IDENTITY] = "model"
    """model: the student's chat template (plain without one); plain: Alpaca's text and an eos; or a jinja text."""
    train_on_prompt: Annotated[Bool, IDENTITY] = True
    """Prompt tokens count in the loss."""
    limit: Annotated[Positive | None, OrNone(), IDENTITY] = None
    """The first rows only."""
    max_length: Annotated[Positive | None, OrNone(), IDENTITY] = None
    """Longer rows are cut, counted and told."""
    holdout: Annotated[Annotated[Int, Field(ge=0)], IDENTITY] = 0
    """Rows kept out of training, for held-out losses."""


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


class TeacherOrStudent(Frozen):
    """A model, and what it changes in the fine-tuning recipe."""

    model: str
    """Hub id, or a folder relative to the study."""
    revision: str | None = None
    label: str | None = None
    finetune: Annotated[dict[str, Any], Layer(Finetune)] = Field(default_factory=dict)
    trust_remote_code: Bool = False
    """Run the Python that the model's repository ships."""


class Pair(Frozen):
    """A teacher, a student, and what the pair changes in the recipes."""

    label: str | None = None
    teacher: TeacherOrStudent
    student: TeacherOrStudent
    distill: Annotated[dict[str, Any], Layer(Distill)] = Field(default_factory=dict)


ReferenceRow: TypeAlias = Literal["teacher/baseline", "teacher/finetuned", "student/baseline", "student/finetuned"]
REFERENCES: tuple[ReferenceRow, ...] = (
    "teacher/baseline",
    "teacher/finetuned",
    "student/baseline",
    "student/finetuned",
)


class RowSpec(Frozen):
    """One cell said alone."""

    label: Slug
    settings: dict[str, Any]
    """Dotted path -> value."""


class Ablation(Frozen):
    """One question: the cells that differ in what is asked about, and what they are compared with."""

    title: str | None = None
    question: str | None = None
    grid: dict[str, Axis] = Field(default_factory=dict)
    """Dotted path -> values; every combination is a cell."""
    zip: dict[str, Axis] = Field(default_factory=dict)
    """Dotted path -> values, side by side."""
    exclude: tuple[dict[str, Any], ...] = ()
    """Cells of the grid left out: {dotted path: value}, all of which must match."""
    rows: tuple[RowSpec, ...] = ()
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted path -> value, the same for every cell."""
    references: tuple[ReferenceRow, ...] = REFERENCES
    control: str = "student/finetuned"
    """Name of the row that the others are compared with."""


class Report(Frozen):
    """What the tables decide by."""

    primary: str | None = None
    """task/metric that decides; the first metric of the first task unless said."""
    delta: Annotated[Num, Field(gt=0)] = 0.01
    """Differences inside are equivalent."""
    replicate: Annotated[Int, Field(ge=0)] = 0
    """Further seeds of the control alone, for the A/A row."""


class Study(Frozen):
    """One study file: frozen, whole, every path in it absolute."""

    name: Slug
    title: str | None = None
    dtype: Dtype = "bfloat16"
    """Of the frozen weights and the arithmetic; adapters and optimizer are float32."""
    data: Data
    pairs: Annotated[dict[Slug, Pair], Field(min_length=1)]
    train: Annotated[dict[str, Any], Layer(Train)] = Field(default_factory=dict)
    finetune: Annotated[dict[str, Any], Layer(Finetune)] = Field(default_factory=dict)
    distill: Annotated[dict[str, Any], Layer(Distill)] = Field(default_factory=dict)
    evaluate: Evaluate = Evaluate()
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    """Students are trained once a seed; the teacher is one fixed treatment, tuned with the first."""
    report: Report = Report()
    ablations: Annotated[dict[Slug, Ablation], Field(min_length=1)]
    published: str | None = None
    """A file of others' scores, shown beside ours."""
    rehearsal: Annotated[Bool, OfARun()] = False
    """Set by --rehearse, in no file: 8 optimizer steps a training, 16 questions a task."""
