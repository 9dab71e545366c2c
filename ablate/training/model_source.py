"""A model as a stage is given it: weights, and what is merged into them, loaded and looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ablate.study.quantize import Quantize
from ablate.training.fingerprint import require_same
from ablate.training.models import LoadedModel, load_merged


@dataclass(frozen=True)
class ModelSource:
    """A folder of weights, and the adapters and trainings on top of it, first to last."""

    folder: Path
    made_by: Sequence[str] = ()
    """Names of the stages that made it, which say what it is."""
    adapters: Sequence[Path] = ()
    """Of the model as it was fetched."""
    trainings: Sequence[Path] = ()
    """Of the study."""
    quantize: Quantize | None = None
    """How its linear modules are kept, and so what the trainings are on top of."""
    trust_remote_code: bool = False
    tokenizer: Path | None = None
    """Its folder, where it is not the weights'."""

    def load(self, dtype: str, device: str, checks: Path | None, quantize_on: str | None = None) -> LoadedModel:
        """-> the model, whole, the one that it was whenever it was loaded before (see `require_same`).

        `quantize_on`: where few bits are computed, of a model that goes elsewhere: a CPU takes minutes for it.
        """
        trusted = self.trust_remote_code
        loaded = load_merged(
            self.folder,
            self.adapters,
            dtype,
            device,
            trust_remote_code=trusted,
            tokenizer=self.tokenizer,
            quantize=self.quantize,
            quantize_on=quantize_on,
            trainings=self.trainings,
        )
        require_same(loaded.model, self.made_by, dtype, checks)
        return loaded
