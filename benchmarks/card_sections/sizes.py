"""What is measured on a card: how large the models are, how many the rows."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import models


@dataclass(frozen=True)
class Card:
    """The device and the sizes that suit it."""

    device: str
    dtype: str
    vocabulary: int
    teacher: tuple[int, int]
    """Layers, width."""
    student: tuple[int, int]
    num_rows: tuple[int, ...]
    """Of one optimizer step, few and many."""
    num_steps: int
    """Measured, after one that is not."""
    num_questions: int
    scratch: str
    """A folder of the run's own, on the disk that is measured."""

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> "Card":
        values: dict[str, Any] = json.loads(text)
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    @property
    def is_cpu(self) -> bool:
        return self.device == "cpu"

    def config(self, name: str) -> Any:
        """-> of `teacher` (proportions of Llama 3.1 8B) or `student` (of Llama 3.2 1B)."""
        if name == "teacher":
            return models.config(models.Size(*self.teacher), self.vocabulary, 3.5, 8.0, is_tied=False)
        return models.config(models.Size(*self.student), self.vocabulary, 4.0, 32.0, is_tied=True)


def real(scratch: Path) -> Card:
    """-> Llama 3.1 8B and 3.2 1B."""
    return Card("cuda", "bfloat16", 128_256, (32, 4096), (16, 2048), (16, 128), 5, 60, str(scratch))


def toy(scratch: Path, device: str) -> Card:
    """-> sizes that a core of a CPU goes through in seconds."""
    return Card(device, "bfloat16", 512, (2, 256), (2, 128), (4, 8), 2, 3, str(scratch))
