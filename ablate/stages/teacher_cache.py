"""teacher_cache: what a teacher says of the rows, asked once for all the distillations that learn from it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from ablate.data.steps import rows_of_step
from ablate.job import KINDS, Job
from ablate.model import IDENTITY, Bool, Frozen, Int, Num
from ablate.spec.schema import Dtype
from ablate.stages.inputs import source

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

    form: Annotated[Literal["vector"], IDENTITY] = "vector"
    """vector: for forward KL at one temperature and a student with a frozen head; see `engine.loss.Vectors`."""
    dtype: Annotated[Dtype, IDENTITY]
    temperature: Annotated[Num, IDENTITY] = 1.0
    reads: Annotated[tuple[Use, ...] | None, IDENTITY] = None
    """The rows that these trainings read; None: all."""


class TeacherCache:
    """Inputs: `teacher` (fetch), maybe `teacher_adapter` (finetune), `student` (fetch: its head), `rows`.

    An aid of distillations. out/: index.json, <part>-<n>.safetensors. A student whose head cannot be served gives an
    index that says why, and no shard.
    """

    version: ClassVar[int] = 1
    Settings: ClassVar[type[Frozen]] = TeacherCacheSettings
    is_online: ClassVar[bool] = False
    is_light: ClassVar[bool] = False
    is_verdict: ClassVar[bool] = False

    def run(self, job: Job) -> None:
        from ablate.engine import capture, session, vectors

        parts = session.load_parts(job.inputs["rows"] / "out")
        head = session.load_split(job, "student", source(job, "student")).head
        if why := vectors.unfit(head):
            return capture.refuse(job, why)
        return capture.capture(
            job,
            capture.Capture(
                teacher=session.load_split(job, "teacher", source(job, "teacher")),
                head=head,
                temperature=job.settings.temperature,
                parts=parts,
                read={"train": _read(job.settings, parts["train"]), "holdout": range(len(parts["holdout"]))},
            ),
        )

    def check(self, folder: Path) -> None:
        from ablate.engine.vectors import check

        check(folder)

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
