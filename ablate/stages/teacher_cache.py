"""teacher_cache: what a teacher says of the rows, asked once for all the distillations that learn from it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from ablate.core.values import IDENTITY, Bool, Frozen, Int, Num
from ablate.data.steps import rows_of_step
from ablate.stages.inputs import source
from ablate.store.job import KINDS, Job
from ablate.study.schema import Dtype

if TYPE_CHECKING:
    from ablate.data.tokens import TokenRows


class Use(Frozen):
    """The first steps of a training: which rows it reads."""

    seed: Annotated[Int, IDENTITY]
    batch_size: Annotated[Int, IDENTITY]
    num_steps: Annotated[Int, IDENTITY]
    drop_last: Annotated[Bool, IDENTITY]


class TeacherCacheSettings(Frozen):
    """What decides a cache, apart from the models and the rows."""

    form: Annotated[Literal["vector", "hidden"], IDENTITY]
    """vector: for forward KL at one temperature and a student with a frozen head (TeacherVectors).
    hidden: for every loss, temperature and student."""
    dtype: Annotated[Dtype, IDENTITY]
    temperature: Annotated[Num, IDENTITY] = 1.0
    """Of vectors."""
    reads: Annotated[tuple[Use, ...] | None, IDENTITY] = None
    """The rows that these trainings read; None: all."""


class TeacherCache:
    """Inputs: `teacher` (fetch), maybe `teacher_adapter` (finetune), `rows`; for vectors `student` (fetch: its head).

    An aid of distillations. out/: index.json, <part>-<n>.safetensors, head.safetensors (the teacher's). Models that
    cannot be served give an index that says why, and no shard.
    """

    version: ClassVar[int] = 3
    Settings: ClassVar[type[Frozen]] = TeacherCacheSettings
    is_online: ClassVar[bool] = False
    is_light: ClassVar[bool] = False
    is_verdict: ClassVar[bool] = False

    def run(self, job: Job) -> None:
        from ablate.training import capture_plan, teacher_cache, teacher_capture, training_run

        rows, settings, target = training_run.load_rows(job), job.settings, None
        if settings.form == "vector":
            head = training_run.load_parts(job, "student", source(job, "student"), rows).head
            if why := teacher_cache.why_no_vectors(head):
                return teacher_capture.write_empty_cache(job, why)
            target = capture_plan.VectorTarget(head, settings.temperature)
        model = source(job, "teacher")
        teacher = training_run.load_parts(job, "teacher", model, rows)
        if target is None and teacher.head.weight is None:
            return teacher_capture.write_empty_cache(job, "the teacher's logits are made whole")
        rows_read: dict[teacher_cache.RowSplit, Sequence[int]] = {
            "train": _read(settings, rows.splits["train"]),
            "holdout": range(len(rows.splits["holdout"])),
        }
        plan = capture_plan.CapturePlan(model.made_by, settings.dtype, teacher, target, rows.splits, rows_read)
        return teacher_capture.capture_teacher(job, plan)

    def check(self, folder: Path) -> None:
        from ablate.training.teacher_cache import check_cache

        check_cache(folder)

    def is_present(self, folder: Path) -> bool:
        return True


KINDS.register("teacher_cache")(TeacherCache())


def _read(settings: TeacherCacheSettings, rows: "TokenRows") -> "range | list[int]":
    if settings.reads is None or not len(rows):
        return range(len(rows))
    steps = ((use, step) for use in settings.reads for step in range(1, use.num_steps + 1))
    return sorted({
        row for use, step in steps for row in rows_of_step(step, len(rows), use.batch_size, use.drop_last, use.seed)
    })  # fmt: skip
