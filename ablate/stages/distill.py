"""distill: a student trained on the rows by class loss and by what a teacher says of the same tokens."""

from pathlib import Path
from typing import Annotated, ClassVar

from ablate.core.values import IDENTITY, Frozen, Int
from ablate.stages.inputs import fetched, source
from ablate.store.job import KINDS, Job
from ablate.study.schema import Distill as Recipe
from ablate.study.schema import Dtype


class DistillSettings(Frozen):
    """What decides a distillation, apart from the models and the rows."""

    recipe: Annotated[Recipe, IDENTITY]
    dtype: Annotated[Dtype, IDENTITY]
    seed: Annotated[Int, IDENTITY]


class Distill:
    """Inputs: `teacher`, `student` (fetch), `rows`, maybe `teacher_adapter`, `student_adapter` (finetune).

    Aid: `teacher_cache`, without which the teacher runs beside the student.
    A fine-tuned student is merged with its adapter first; the result is a new adapter on top of that.
    """

    version: ClassVar[int] = 1
    Settings: ClassVar[type[Frozen]] = DistillSettings
    is_online: ClassVar[bool] = False
    is_light: ClassVar[bool] = False
    is_verdict: ClassVar[bool] = False

    def run(self, job: Job) -> None:
        from ablate.training import training_run
        from ablate.training.adapters import Origin
        from ablate.training.loss import objective

        student, cache = fetched(job.inputs["student"]), job.inputs.get("teacher_cache")
        training_run.train_stage(
            job,
            source(job, "student"),
            objective(job.settings.recipe),
            origin=Origin(student.repo, student.revision),
            teacher=source(job, "teacher"),
            cache=cache / "out" if cache else None,
        )

    def check(self, folder: Path) -> None:
        from ablate.training.finished import check_training

        check_training(folder)

    def is_present(self, folder: Path) -> bool:
        return True


KINDS.register("distill")(Distill())
