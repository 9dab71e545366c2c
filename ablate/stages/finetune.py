"""finetune: a model trained on the rows by cross-entropy alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from ablate.core.values import EXTENSION, IDENTITY, Cards, Frozen, Int
from ablate.stages.inputs import fetched_model, source
from ablate.stages.sharing import shared
from ablate.stages.training_cost import training_cost
from ablate.store.job import Job
from ablate.store.kind import KINDS, Cost, Kind, Words
from ablate.store.sizes import fetched_sizes
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.field_types import Dtype
from ablate.study.quantize import Quantize
from ablate.study.training_recipes import Finetune as Recipe


class FinetuneSettings(Frozen):
    """What decides a fine-tuning, apart from the model and the rows."""

    recipe: Annotated[Recipe, IDENTITY]
    dtype: Annotated[Dtype, IDENTITY]
    seed: Annotated[Int, IDENTITY]
    quantize: Annotated[Quantize | None, EXTENSION] = None
    """Of the model."""


class Finetune(Kind[FinetuneSettings]):
    """Inputs: `model` (fetch), `rows`. Result: an adapter in PEFT's files, or model.safetensors (`lora: none`)."""

    Settings = FinetuneSettings
    is_work = True
    spread = "weights"
    words = Words(10, "fine-tuned", "fine-tuning", work="fine-tuning")

    @shared
    def run(self, job: Job) -> None:
        from ablate.training import training_run
        from ablate.training.adapters import Origin
        from ablate.training.loss import CLASS_LOSS

        model = fetched_model(job.inputs["model"]).weights
        training_run.train_stage(
            job,
            source(job, "model", job.settings.quantize),
            CLASS_LOSS,
            origin=Origin(model.repo, model.revision),
        )

    def cards(self, settings: FinetuneSettings) -> Cards:
        return settings.recipe.cards

    def most_cards(self, settings: FinetuneSettings) -> int:
        return settings.recipe.batch_size  # a rank without a row of a step has nothing to do

    def check(self, folder: Path) -> None:
        from ablate.training.finished import check_training

        check_training(folder)

    def cost(self, stage: Stage, store: Store, aids: Mapping[str, Stage]) -> Cost:
        settings = self.settings_of(stage)
        model = fetched_sizes(store, stage.inputs["model"], settings.quantize)
        return training_cost(settings.recipe, settings.dtype, model, stage.inputs["rows"], store)


KINDS.register("finetune")(Finetune())
