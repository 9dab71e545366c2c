"""Who takes part; each imports its libraries when it is found."""

import importlib
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from benchmarks.setup import Setup


class Contender(Protocol):
    """One way to take an optimizer step. Made with its models loaded and nothing more."""

    forwarded: int
    """Tokens that the last step sent through the student, padding too; in a capture, through the teacher."""

    def prepare(self) -> None:
        """Adapters and optimizer: what counts as memory above the models."""

    def step(self) -> Mapping[str, float]:
        """-> what it minimised, means over the step's tokens: some of class_loss, kd_loss (a true KL), cross_kd
        (kd_loss and the teacher's entropy)."""


class Entry(NamedTuple):
    """Where a contender is, and what a reader should know of it."""

    module: str
    name: str
    note: str


ENTRIES = {
    "finetune": Entry("ours", "FineTuning", "ablate: fine-tuning"),
    "beside": Entry("ours", "Beside", "ablate: KD, the teacher beside"),
    "hidden": Entry("ours", "FromHidden", "ablate: KD from kept hidden states"),
    "vector": Entry("ours", "FromVectors", "ablate: KD from kept vectors"),
    "capture-hidden": Entry("ours", "CapturingHidden", "ablate: the hidden states of a step's rows asked and kept"),
    "capture-vector": Entry("ours", "CapturingVectors", "ablate: the vectors of a step's rows asked and kept"),
    "torchtune": Entry("torchtune_recipe", "Recipe", "torchtune's KD recipe, single device; its KL keeps H(p)"),
    "trl": Entry("trl_gkd", "Gkd", "TRL's GKDTrainer, lmbda 0, beta 0: the KL alone, no class loss"),
    "peft": Entry("plain", "Distilling", "transformers + peft: KD, dense logits"),
    "peft-finetune": Entry("plain", "FineTuning", "transformers + peft: fine-tuning"),
    "liger": Entry("liger_loss", "Distilling", "transformers + peft with Liger's fused distillation loss"),
}
OWN_ANSWERS = {
    "own-answers": Entry("own_answers", "OwnAnswers", "ablate: KD on answers that the student writes for the step"),
    "trl-own-4": Entry("trl_own_answers", "Gkd", "TRL's GKDTrainer, lmbda 1, beta 1, 4 rows at a time"),
    "trl-own-16": Entry("trl_own_answers", "GkdAtOnce", "the same, all 16 rows at a time"),
}
"""Of `benchmarks.on_policy`."""
OURS = (*(name for name, entry in ENTRIES.items() if entry.module == "ours"), "own-answers")
CAPTURES = {"hidden": "capture-hidden", "vector": "capture-vector"}
"""Who keeps what a cached contender reads."""


def find(name: str) -> Callable[[Setup], Contender]:
    entry = (ENTRIES | OWN_ANSWERS)[name]
    contender: Callable[[Setup], Contender] = getattr(
        importlib.import_module(f"benchmarks.contenders.{entry.module}"), entry.name
    )
    return contender
