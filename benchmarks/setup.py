"""What every contender of a run is told, and what all of them share."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

KD_RATIO = 0.5
LR = 3e-4
WEIGHT_DECAY = 0.01
LORA_RANK = 64
LORA_ALPHA = 128
TARGETS = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NEW_TOKENS = 64
"""Of an answer that a student writes for a step."""
ENDS = 2
"""The token that ends one; of random models hardly ever drawn."""
MICRO_BATCH = 4
"""Rows that the peers forward together, as torchtune's recipe does."""


@dataclass(frozen=True)
class Setup:
    """One contender's part in a run."""

    contender: str
    folder: str
    """Holds the models, and the teacher's kept answers."""
    vocabulary: int
    num_rows: int
    seed: int
    dtype: str
    device: str

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> "Setup":
        return cls(**json.loads(text))

    def model(self, name: str) -> Path:
        """-> the folder of `teacher` or `student`."""
        return Path(self.folder) / name
