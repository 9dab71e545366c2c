"""What dropout keeps of each row: drawn by seeds of the row's own, so that it does not hang on how a step is cut."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ablate.core.errors import StageError
from ablate.training.products import is_card
from ablate.training.seeds import seed_of

# B rows, T positions, I numbers of a position


def kept(seeds: Sequence[str], lengths: Sequence[int], x_BTI: Tensor, dropout: float) -> Tensor:
    """-> whether dropout keeps each number of rows that are padded, or stand one after the other (1 x N x I).

    `seeds`, `lengths`: of each row, padding not counted. A card draws others than a CPU does. Some families (OPT,
    DeepSeek, shared experts) hand on the same tokens in other dimensions. Raises StageError where some are missing.
    """
    draw = drawn_by_card if is_card(x_BTI) else drawn_by_cpu
    return draw(seeds, lengths, _row_by_row(lengths, x_BTI), dropout).view(x_BTI.shape)


def _row_by_row(lengths: Sequence[int], x: Tensor) -> Tensor:
    """-> B x T x I or 1 x N x I, whatever dimensions stand before the last."""
    if x.dim() == 3:
        return x
    num, width = x.shape[:-1].numel(), x.shape[-1]
    if num == len(lengths) * max(lengths):
        return x.reshape(len(lengths), max(lengths), width)
    if num == sum(lengths):
        return x.reshape(1, num, width)
    raise StageError(
        f"lora.dropout: a module with an adapter is given {num} tokens of the {sum(lengths)} that are trained on, as an"
        " expert is, and what it drops of each row cannot be told; set dropout to 0, or leave it out of target_modules"
    )


def drawn_by_cpu(seeds: Sequence[str], lengths: Sequence[int], x_BTI: Tensor, dropout: float) -> Tensor:
    """-> as `kept`; a longer row begins as a shorter one, so padding is drawn with the rest."""
    if _is_padded(seeds, x_BTI):
        lengths = [x_BTI.shape[1]] * len(seeds)
    drawn = [
        torch.rand(length, x_BTI.shape[2], generator=torch.Generator().manual_seed(seed_of(seed)))
        for seed, length in zip(seeds, lengths, strict=True)
    ]
    return torch.cat(drawn).view(x_BTI.shape) >= dropout


def drawn_by_card(seeds: Sequence[str], lengths: Sequence[int], x_BTI: Tensor, dropout: float) -> Tensor:
    """-> as `kept`, drawn where x is: a kernel and a byte a number for each row. Of padding nothing is kept.

    A CPU takes 0.9 ms for the draws of a token of a Llama 1B, a card 38 us for all the rest of it.
    """
    numbers = torch.zeros(x_BTI.shape, dtype=torch.bool, device=x_BTI.device)
    rows = [row[:length] for row, length in zip(numbers, lengths, strict=True)] if _is_padded(seeds, x_BTI) else None
    generator = None if x_BTI.is_meta else torch.Generator(x_BTI.device)
    for row, seed in zip(rows or torch.split(numbers[0], list(lengths)), seeds, strict=True):
        row.bernoulli_(1 - dropout, generator=generator and generator.manual_seed(seed_of(seed)))
    return numbers


def _is_padded(seeds: Sequence[str], x_BTI: Tensor) -> bool:
    return x_BTI.shape[0] == len(seeds)
