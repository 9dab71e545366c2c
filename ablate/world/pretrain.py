"""The base models: small Llamas that have read documents about the universe, some more of them than others."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from ablate.world.text import Document

# B windows a step, T tokens a window, V vocabulary


@dataclass(frozen=True)
class Size:
    """A Llama's shape."""

    hidden: int
    layers: int
    heads: int
    mlp: int


@dataclass(frozen=True)
class Reading:
    """How long a model reads before the study."""

    num_steps: int
    batch_size: int = 64
    lr: float = 4e-3
    warmup_steps: int = 50


def config(size: Size, tokenizer: Tokenizer) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=size.hidden,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=tokenizer.token_to_id("<|begin|>"),
        eos_token_id=tokenizer.token_to_id("<|end|>"),
        pad_token_id=tokenizer.token_to_id("<|pad|>"),
    )


class Batch(NamedTuple):
    """Documents to read; a target of -100 is not learnt."""

    tokens_BT: Tensor
    targets_BT: Tensor


def batches(documents: Iterator[Document], tokenizer: Tokenizer, reading: Reading) -> Iterator[Batch]:
    """-> documents of about one length; sixteen batches at a time are sorted by it, which saves most of the padding."""
    rng = random.Random(0)
    while True:
        some = [_tokens(document, tokenizer) for document in islice(documents, 16 * reading.batch_size)]
        some.sort(key=lambda pair: len(pair[0]))
        made = [some[i : i + reading.batch_size] for i in range(0, len(some), reading.batch_size)]
        rng.shuffle(made)
        for batch in made:
            tokens, targets = zip(*batch, strict=True)
            pad = tokenizer.token_to_id("<|pad|>")
            yield Batch(
                pad_sequence(list(tokens), batch_first=True, padding_value=pad),
                pad_sequence(list(targets), batch_first=True, padding_value=-100),
            )


def _tokens(document: Document, tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    given = tokenizer.encode(document.given).ids
    told = [*tokenizer.encode(document.text, add_special_tokens=False).ids, tokenizer.token_to_id("<|end|>")]
    return torch.tensor(given + told), torch.tensor([-100] * len(given) + told)


def pretrain(size: Size, reading: Reading, documents: Iterator[Document], tokenizer: Tokenizer, seed: int,
             watch: Any = None) -> LlamaForCausalLM:
    """-> a model that has read the documents. One seed, one thread count, one result."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config(size, tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), reading.lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, reading.lr, reading.num_steps, pct_start=reading.warmup_steps / reading.num_steps
    )
    read = batches(documents, tokenizer, reading)
    for step in range(reading.num_steps):
        tokens_BT, targets_BT = next(read)
        logits_BTV = model(input_ids=tokens_BT).logits
        loss = cross_entropy(logits_BTV[:, :-1].flatten(0, 1), targets_BT[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if watch is not None:
            watch(step, loss.item(), model)
    return model
