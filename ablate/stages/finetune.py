"""finetune: a model trained on the rows by cross-entropy alone."""

from pathlib import Path
from typing import Annotated, ClassVar

from ablate.core.values import IDENTITY, Frozen, Int
from ablate.stages.inputs import fetched, source
from ablate.store.job import KINDS, Job
from ablate.study.schema import Dtype
from ablate.study.schema import Finetune as Recipe


class FinetuneSettings(Frozen):
    """What decides a fine-tuning, apart from the model and the rows."""

    recipe: Annotated[Recipe, IDENTITY]
    dtype: Annotated[Dtype, IDENTITY]
    seed: Annotated[Int, IDENTITY]


class Finetune:
    """Inputs: `model` (fetch), `rows`. Result: an adapter in PEFT's files, or model.safetensors (`lora: none`)."""

    version: ClassVar[int] = 1
    Settings: ClassVar[type[Frozen]] = FinetuneSettings
    is_online: ClassVar[bool] = False
    is_light: ClassVar[bool] = False
    is_verdict: ClassVar[bool] = False

    def run(self, job: Job) -> None:
        from ablate.training import training_run
        from ablate.training.adapters import Origin
        from ablate.training.loss import CLASS_LOSS

        model = fetched(job.inputs["model"])
        training_run.train_stage(
            job,
            source(job, "model"),
            CLASS_LOSS,
            origin=Origin(model.repo, model.revision),
        )

    def check(self, folder: Path) -> None:
        from ablate.training.finished import check_training

        check_training(folder)

    def is_present(self, folder: Path) -> bool:
        return True


KINDS.register("finetune")(Finetune())
