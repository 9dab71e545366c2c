"""The base models: small Llamas that have read documents about the universe, some more of them than others."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM

from ablate.example.facts import Fame, Person
from ablate.example.reading import Document, documents
from ablate.example.tokenizer import BOS_ID, EOS_ID, PAD_ID

# B documents a step, T tokens a document, V vocabulary

SHARES = {"profile": 2, "day": 2, "lore": 0.5, "quiz": 1, "letters": 2, "chat": 2, "met": 1}
"""Of each kind of document in what the models read."""


@dataclass(frozen=True)
class Base:
    """A base model: its shape, of whom it reads, and for how long."""

    hidden: int
    layers: int
    heads: int
    mlp: int
    knows: tuple[Fame, ...]
    num_steps: int
    batch_size: int = 64
    lr: float = 4e-3


BASES = {
    "teacher": Base(96, 3, 4, 192, ("famous", "known", "remote"), 900),
    "student": Base(64, 2, 2, 128, ("famous",), 900),
    "close_teacher": Base(80, 2, 4, 160, ("famous", "known"), 900),
    "close_student": Base(64, 2, 2, 128, ("famous",), 900),
}


class Batch(NamedTuple):
    """Documents to read; a target of -100 is not learnt."""

    tokens_BT: Tensor
    targets_BT: Tensor


def config(base: Base, tokenizer: Tokenizer) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=base.hidden,
        intermediate_size=base.mlp,
        num_hidden_layers=base.layers,
        num_attention_heads=base.heads,
        num_key_value_heads=base.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )


def batches(read: Iterator[Document], tokenizer: Tokenizer, batch_size: int) -> Iterator[Batch]:
    """-> documents of about one length; sixteen batches at a time are sorted by it, which saves most of the padding."""
    rng = random.Random(0)
    while True:
        some = sorted((_tokens(doc, tokenizer) for doc in islice(read, 16 * batch_size)), key=lambda pair: len(pair[0]))
        chunks = [some[start : start + batch_size] for start in range(0, len(some), batch_size)]
        for batch in rng.sample(chunks, len(chunks)):
            tokens, targets = ([pair[i] for pair in batch] for i in (0, 1))
            yield Batch(pad_sequence(tokens, True, PAD_ID), pad_sequence(targets, True, -100))


def _tokens(document: Document, tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    given = tokenizer.encode(document.given).ids
    learnt = [*tokenizer.encode(document.text, add_special_tokens=False).ids, EOS_ID]
    return torch.tensor(given + learnt), torch.tensor([-100] * len(given) + learnt)


def pretrain(base: Base, read: Iterator[Document], tokenizer: Tokenizer, seed: int) -> LlamaForCausalLM:
    """-> a model that has read the documents. One seed, one thread, one result."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config(base, tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), base.lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, base.lr, base.num_steps, pct_start=0.1)
    for batch in islice(batches(read, tokenizer, base.batch_size), base.num_steps):
        logits_BTV = model(input_ids=batch.tokens_BT).logits
        loss = cross_entropy(logits_BTV[:, :-1].flatten(0, 1), batch.targets_BT[:, 1:].flatten())
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model


def write_models(folder: Path, everybody: Sequence[Person], tokenizer: Tokenizer, seed: int) -> None:
    """Write the weights of every base model, in bfloat16."""
    torch.set_num_threads(1)
    for number, (name, base) in enumerate(BASES.items()):
        start = time.monotonic()
        known = [person for person in everybody if person.fame in base.knows]
        read = documents(known, everybody, SHARES, f"{name} {seed}")
        model = pretrain(base, read, tokenizer, seed + number)
        model.to(torch.bfloat16).save_pretrained(folder / name)
        print(f"{name}: {model.num_parameters():,} parameters, {time.monotonic() - start:.0f} s")
