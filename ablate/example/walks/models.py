"""The two base models of the walks: one has read guides, the other has read of people who wander about."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import torch
from tokenizers import Tokenizer

from ablate.example.pretrain import Base, pretrain
from ablate.example.reading import Document
from ablate.example.walks.roads import Map
from ablate.example.walks.walks import guides, wanderers


class Walker(NamedTuple):
    """A base model, and what it reads."""

    base: Base
    read: Callable[[Map, str], Iterator[Document]]


WALKERS: Final[Mapping[str, Walker]] = {
    "teacher": Walker(Base(96, 3, 4, 192, (), 1500), guides),
    "student": Walker(Base(64, 2, 4, 128, (), 500), wanderers),
}


def write_walkers(folder: Path, roads: Map, tokenizer: Tokenizer, seed: int) -> None:
    """Write the weights of both, in bfloat16."""
    torch.set_num_threads(1)
    for number, (name, walker) in enumerate(WALKERS.items()):
        start = time.monotonic()
        model = pretrain(walker.base, walker.read(roads, f"{name} {seed}"), tokenizer, seed + number)
        model.to(torch.bfloat16).save_pretrained(folder / name)
        print(f"walks/{name}: {model.num_parameters():,} parameters, {time.monotonic() - start:.0f} s")
