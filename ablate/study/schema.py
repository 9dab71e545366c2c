"""The study file as values: what every field means, its default, and whether results depend on it."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, Field

from ablate.core.values import Bool, Frozen, Int, Num
from ablate.study.data_settings import Data
from ablate.study.evaluation_settings import Evaluate
from ablate.study.field_types import Dtype, OrNone
from ablate.study.layer import Layer, OfARun
from ablate.study.pruning import Prune, cut_or_none
from ablate.study.quantize import Quantize
from ablate.study.training_recipes import Distill, Finetune, Train

Slug: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Seed: TypeAlias = Annotated[Int, Field(ge=0, lt=2**32)]
Axis: TypeAlias = Annotated[tuple[Any, ...], Field(min_length=1)]


class TeacherOrStudent(Frozen):
    """A model, and what it changes in the fine-tuning recipe."""

    hints: ClassVar[Mapping[str, str]] = {"prune": "A student alone is cut: a teacher is asked as it is."}

    model: str
    """Hub id, or a folder relative to the study; of weights, or of a PEFT adapter alone."""
    base: str | None = None
    """Of an adapter: the model that it is merged on, where not its adapter_config.json shall say it."""
    revision: str | None = None
    label: str | None = None
    finetune: Annotated[dict[str, Any], Layer(Finetune)] = Field(default_factory=dict)
    quantize: Annotated[Quantize | None, OrNone()] = None
    """Keep the weights of its linear modules in few bits wherever the study loads it: nf4 (4 bits, in blocks of 64) or
    int8. Adapters are trained, and models evaluated and exported, on top of these numbers."""
    trust_remote_code: Bool = False
    """Run the Python that the model's repository ships."""


class Student(TeacherOrStudent):
    """A model that learns, whole or cut."""

    prune: Annotated[Prune | None, OrNone(), AfterValidator(cut_or_none)] = None
    """What stays of it: `{depth: 0.5}`, `{layers: [0, 2, 4]}`, `{width: {intermediate: 0.5}}`. Its weights are cut as
    they are here, before anything is trained: of a student that is its teacher's own model, too, and of a fine-tuned
    teacher nothing is in it."""


class Pair(Frozen):
    """A teacher, a student, and what the pair changes in the recipes."""

    label: str | None = None
    teacher: TeacherOrStudent
    student: Student
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


class StatedContrast(Frozen):
    """Cells that are set against each other, all else equal: the mean of the one sort less that of the other."""

    plus: Annotated[dict[str, Any], Field(min_length=1)]
    """Dotted path -> value of the cells that count up."""
    minus: Annotated[dict[str, Any], Field(min_length=1)]


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
    contrasts: dict[Slug, StatedContrast] = Field(default_factory=dict)
    """What the ablation asks, where the axes do not say it: in place of the contrasts that follow from them. Results
    depend on none of it, so that it can be said once all is done."""


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
