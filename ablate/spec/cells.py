"""A study's cells: every row of every ablation, with all layers of its recipes laid over each other."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ablate.spec.schema import Data, Distill, Evaluate, Finetune, ReferenceRow, TeacherOrStudent

RowModel: TypeAlias = ReferenceRow | Literal["distill"]


@dataclass(frozen=True)
class Setting:
    """What one row is made from: complete recipes, nothing left to look up."""

    pair: str
    dtype: str
    data: Data
    teacher: TeacherOrStudent
    student: TeacherOrStudent
    finetune_teacher: Finetune
    finetune_student: Finetune
    distill: Distill
    evaluate: Evaluate


@dataclass(frozen=True)
class Row:
    """One row of one ablation's table, before seeds."""

    ablation: str
    name: str
    """`lr=0.0003`, `teacher=baseline,student=finetuned`, a label, or the reference row's name."""
    label: str
    """What a table shows: "Fine-tuned teacher using LoRA", "KD, lr=0.0003"."""
    model: RowModel
    """Which model the row evaluates."""
    setting: Setting
    values: dict[str, Any]
    """Dotted path -> value of the axes; empty for a reference row."""
    control: str
    """Name of the row of the same ablation that this one is compared with."""
