"""The cards of this machine, as NVIDIA's management library tells: what they are, what is free, who is on them."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import psutil
import pynvml

USE = 0.2
"""Share of a card's arithmetic that a stage gets which no entry of `card_shares` speaks of: as they are on the mean."""
DENSE_TFLOPS = {
    "B200": 2250,
    "H200": 989,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "4090": 165,
    "A10": 125,
    "V100": 125,
    "L4": 121,
    "T4": 65,
}
"""In 16 bits without sparsity, from the data sheets."""
UNKNOWN_TFLOPS = 300


class Holder(NamedTuple):
    """A process that has memory on a card."""

    pid: int
    user: str | None
    """None: a process that cannot be seen from here, of another container perhaps."""
    num_bytes: int

    def __str__(self) -> str:
        return f"pid {self.pid} of {self.user or 'somebody'} ({self.num_bytes >> 20:,} MiB)"


@dataclass(frozen=True)
class Card:
    """A card, or a slice of one that MIG has cut: what one process can use."""

    number: str
    """As nvidia-smi counts: 0, or 0:1 for a slice."""
    uuid: str
    name: str
    total_bytes: int
    free_bytes: int
    holders: tuple[Holder, ...] = ()


def cards(nvml: Any = None) -> list[Card]:
    """-> every card that works; none where there is no driver."""
    library = nvml or _library()
    if library is None:
        return []
    working: list[Card] = []
    with contextlib.suppress(pynvml.NVMLError):
        for index in range(library.nvmlDeviceGetCount()):
            with contextlib.suppress(pynvml.NVMLError):  # one that is lost must not hide the others
                working += _of_device(library, library.nvmlDeviceGetHandleByIndex(index), str(index))
    return working


def visible(present: Sequence[Card], limit: str | None) -> list[Card]:
    """-> the cards that CUDA_VISIBLE_DEVICES leaves, in its order; what follows a name of no card is ignored."""
    if limit is None:
        return list(present)
    chosen: dict[str, Card] = {}
    for name in limit.split(","):
        card = next((card for card in present if _is_named(card, name.strip())), None)
        if card is None:
            break
        chosen.setdefault(card.uuid, card)
    return list(chosen.values())


def visible_here(nvml: Any = None) -> list[Card]:
    """-> the cards that this process may use."""
    return visible(cards(nvml), os.environ.get("CUDA_VISIBLE_DEVICES"))


def driver_version(nvml: Any = None) -> str:
    """-> the version of the NVIDIA driver, as far as it tells."""
    library = nvml or _library()
    try:
        return _text(library.nvmlSystemGetDriverVersion()) if library else "none"
    except pynvml.NVMLError as error:
        return str(error)


def flops_per_s(name: str) -> float:
    """-> what a card of that name does for a training."""
    return USE * 1e12 * DENSE_TFLOPS.get(card_in(name) or "", UNKNOWN_TFLOPS)


@cache
def card_in(text: str) -> str | None:
    """-> the card that a text names: A100 for NVIDIA A100-SXM4-80GB, gpu:a100:1, accelerator_type:A100.

    As a word: host4 is no T4; but RTX and the G of a GH200 may stand before it.
    """
    words = (word for word in DENSE_TFLOPS if re.search(rf"(?<![A-Z0-9])(RTX|G)?{word}(?![0-9])", text.upper()))
    return next(words, None)


def sort_of(name: str) -> str:
    """-> what is alike in speed goes by one word: every A100, but not a slice of one, nor what is no known card."""
    return name if "MIG" in name else card_in(name) or name


@cache
def _library() -> Any | None:
    """Begun once a process: that can take a second."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _of_device(library: Any, device: Any, number: str) -> Iterator[Card]:
    """-> the card, or the slices it is cut into."""
    if not _is_cut(library, device):
        yield _card(library, device, number)
        return
    for index in range(library.nvmlDeviceGetMaxMigDeviceCount(device)):
        with contextlib.suppress(pynvml.NVMLError):  # not every place for a slice has one
            piece = library.nvmlDeviceGetMigDeviceHandleByIndex(device, index)
            yield _card(library, piece, f"{number}:{index}")


def _is_cut(library: Any, device: Any) -> bool:
    try:
        return bool(library.nvmlDeviceGetMigMode(device)[0] == pynvml.NVML_DEVICE_MIG_ENABLE)
    except pynvml.NVMLError:  # an older card
        return False


def _card(library: Any, device: Any, number: str) -> Card:
    memory = library.nvmlDeviceGetMemoryInfo(device)
    return Card(
        number=number,
        uuid=_text(library.nvmlDeviceGetUUID(device)),
        name=_text(library.nvmlDeviceGetName(device)),
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
        holders=tuple(_holders(library, device)),
    )


def _holders(library: Any, device: Any) -> Iterator[Holder]:
    try:
        processes = library.nvmlDeviceGetComputeRunningProcesses(device)
    except pynvml.NVMLError:
        return
    for process in processes:
        yield Holder(int(process.pid), _user(process.pid), int(process.usedGpuMemory or 0))


def _user(pid: int) -> str | None:
    try:
        return psutil.Process(pid).username()
    except (psutil.Error, KeyError):
        return None


def _is_named(card: Card, name: str) -> bool:
    """By number, by UUID or how it begins; the number of a card that is cut means its first slice."""
    by_uuid = len(name) > 4 and card.uuid.startswith(name)
    return by_uuid or name in (card.number, card.number.partition(":")[0])


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
