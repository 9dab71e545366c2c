"""All that a training consists of, in memory: models loaded and prepared, rows, what is minimised."""

from dataclasses import dataclass, field

from ablate.data import steps
from ablate.data.tokens import TokenRows
from ablate.study.training_recipes import Train
from ablate.training import asked_teachers, batches
from ablate.training.asked_teachers import AskedTeacher
from ablate.training.features import Features
from ablate.training.fused_layers import FusedLayers
from ablate.training.loss import Objective, Scratch
from ablate.training.model_parts import ModelParts
from ablate.training.on_policy import Writing
from ablate.training.trainable import Trainable


@dataclass(frozen=True)
class Training:
    """The result depends on nothing else."""

    recipe: Train
    seed: int
    rows: TokenRows
    student: ModelParts
    trainable: Trainable
    objective: Objective
    own_objective: Objective | None = None
    """Of the rows whose answers the student writes."""
    teacher: AskedTeacher | None = None
    features: Features | None = None
    """Hidden states of the teacher, beside the student then, that the student's are compared with."""
    scratch: Scratch = field(default_factory=Scratch)
    writing: Writing | None = None
    """Where the student writes answers while it trains."""
    fused: FusedLayers | None = None
    """The student's layers that run as one kernel each."""
    holdout: TokenRows | None = None
    """Rows that an adaptive share looks at."""

    @property
    def cutting(self) -> batches.Cutting:
        """How rows are put together: for the student, and the teacher beside it."""
        all_cuttings = [parts.cutting for parts in (self.student, *asked_teachers.live(self.teacher))]
        if self.features:
            all_cuttings.append(self.features.teacher.cutting)
        return batches.Cutting.of_all(all_cuttings)

    @property
    def num_steps(self) -> int:
        recipe = self.recipe
        return steps.num_steps(len(self.rows), recipe.batch_size, recipe.epochs, recipe.max_steps, recipe.drop_last)

    def rows_of(self, step: int) -> batches.StepRows:
        recipe = self.recipe
        indices = steps.rows_of_step(step, len(self.rows), recipe.batch_size, recipe.drop_last, self.seed)
        return batches.StepRows(step, self.rows, indices)
