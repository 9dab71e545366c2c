"""prune: a model cut in depth and width, written as an ordinary model's folder.

out/: config.json, model.safetensors (or shards and their index), the model's tokenizer and generation_config as they
are, and pruning.json: `layers` that stayed, and where heads or channels were cut `kv_heads` (layer -> groups) and
`hidden`.
"""

from pathlib import Path
from typing import Annotated

from ablate.core import disk, model_files
from ablate.core.errors import StageError
from ablate.core.model_faults import faults
from ablate.core.values import IDENTITY, Frozen
from ablate.store.job import Job
from ablate.store.kind import KINDS, Kind, Words
from ablate.store.stage import Stage
from ablate.study.pruning import Prune as Recipe


class PruneSettings(Frozen):
    """What decides a cut, apart from the model: nothing is rounded, so no dtype."""

    cut: Annotated[Recipe, IDENTITY]


class Prune(Kind[PruneSettings]):
    """Input: `model` (fetch), as it is or, where it is an adapter, merged.

    Weights keep the dtype that they are stored in; those that adapters were merged into are float32 (or wider), so
    that whoever loads them rounds the sum once.
    """

    Settings = PruneSettings
    is_light = True
    words = Words(5, "cut", "cut model", is_rare=True)

    def run(self, job: Job) -> None:
        from ablate.stages.inputs import fetched_model
        from ablate.training import pruning

        model = fetched_model(job.inputs["model"])
        if model.weights.trust_remote_code:
            raise StageError("a model that brings Python of its own cannot be cut: what its parts are is not known")
        pruning.write_pruned(job, model.weights.path, model.adapters, job.settings.cut)
        for path in model_files.beside_weights(model.weights.path, model.tokenizer):
            disk.copy(path, job.out / path.name)

    def check(self, folder: Path) -> None:
        out = folder / "out"
        if reasons := list(faults(model_files.files_of(out))) if out.is_dir() else ["it is not there"]:
            raise StageError(f"{folder}: no model that can be loaded: {'; '.join(reasons)}")

    def glance(self, folder: Path) -> None:
        self.check(folder)  # which reads headers alone

    def label(self, stage: Stage, name: str) -> str:
        model = stage.inputs.get("model")
        whole = KINDS[model.kind].label(model, name).removeprefix("fetch ") if model else name
        return f"prune {whole}, {self.settings_of(stage).cut.words}"


KINDS.register("prune")(Prune())
