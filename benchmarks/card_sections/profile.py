"""Where the time of a step goes, by the sort of kernel, from kept vectors and with the teacher beside."""

import re
from collections import Counter
from typing import Any

from torch.profiler import ProfilerActivity, profile

from ablate.training.model_parts import split_model
from benchmarks import table
from benchmarks.card_sections import training_steps
from benchmarks.card_sections.sizes import Card
from benchmarks.card_sections.training_steps import Steps

SORTS = (
    ("copies", r"memcpy|memset|aten::(copy_|_to_copy)$"),
    ("attention", r"flash|fmha|attention|attn"),
    ("float32 products", r"sgemm|s884gemm_f32|gemm.*f32f32_f32|tf32"),
    ("products", r"gemm|cutlass|nvjet|xmma|splitk|aten::(mm|addmm|bmm|baddbmm|linear)|mkldnn|onednn"),
    ("optimizer", r"adam|multi_tensor|_foreach"),
    ("sums and softmax", r"reduce|softmax|logsumexp|aten::(sum|exp|max)"),
    ("elementwise", r""),
)
"""The first that fits a kernel's name."""
AIM = 0.33
"""Of the card's arithmetic: what is within reach."""


def measure(card: Card) -> dict[str, Any]:
    teacher = split_model(training_steps.model(card, "teacher"), card.vocabulary)
    return {way: _profiled(card, way, teacher) for way in ("vector", "beside")}


def _profiled(card: Card, way: Any, teacher: Any) -> dict[str, Any]:
    steps = Steps(card, max(card.num_rows), way, teacher)
    steps.take()
    seconds = training_steps.seconds_of(card, lambda: [steps.take() for _ in range(card.num_steps)]) / card.num_steps
    activity = ProfilerActivity.CPU if card.is_cpu else ProfilerActivity.CUDA
    with profile(activities=[activity]) as profiler:
        training_steps.seconds_of(card, steps.take)
    kernels = _kernels(profiler, is_cpu=card.is_cpu)
    flops = training_steps.model_flops(steps, teacher.model if way == "beside" else None)
    peak = training_steps.peak_flops()
    by_sort: Counter[str] = Counter()
    for name, (took, _) in kernels.items():
        by_sort[sort_of(name)] += took  # type: ignore[assignment]
    return {
        "seconds": seconds,
        "tokens_per_s": steps.num_tokens / seconds,
        "mfu": flops / seconds / peak if peak else None,
        "num_kernels": sum(num for _, num in kernels.values()),
        "idle": None if card.is_cpu else max(0.0, 1 - sum(by_sort.values()) / seconds),
        "seconds_by_sort": dict(by_sort.most_common()),
        "largest": sorted(([took, num, name] for name, (took, num) in kernels.items()), reverse=True)[:10],
        "gaps": _gaps(by_sort, seconds, flops / peak if peak else None),
    }


def sort_of(name: str) -> str:
    """-> what a kernel does, by its name."""
    return next(sort for sort, pattern in SORTS if re.search(pattern, name, re.IGNORECASE))


def _kernels(profiler: Any, *, is_cpu: bool) -> dict[str, tuple[float, int]]:
    """-> seconds and number of each."""
    kernels = {}
    for event in profiler.key_averages():
        took = event.self_cpu_time_total if is_cpu else event.self_device_time_total
        if took:
            kernels[event.key] = (took / 1e6, event.count)
    return kernels


def _gaps(by_sort: Counter[str], seconds: float, ideal: float | None) -> list[str]:
    """-> the three sorts that keep a step farthest from the aim, products beyond their ideal time among them."""
    lost = dict(by_sort) | {"waiting for the host": max(0.0, seconds - sum(by_sort.values()))}
    if ideal:
        lost["products"] = max(0.0, lost.get("products", 0.0) - ideal)
    return [sort for sort, _ in sorted(lost.items(), key=lambda pair: -pair[1])[:3]]


def show(measured: dict[str, Any]) -> str:
    sorts = [sort for sort, _ in SORTS]
    head = ["teacher", "s", "tokens / s", "MFU", "kernels", "idle", *sorts, "largest gaps"]
    rows = [[way, *_cells(one, sorts)] for way, one in measured.items()]
    parts = [table.markdown(head, rows)]
    for way, one in measured.items():
        largest = [[f"{took * 1e3:.1f}", str(num), f"`{name[:90]}`"] for took, num, name in one["largest"]]
        parts.append(f"Largest kernels of a step, {way}:\n\n" + table.markdown(["ms", "number", "kernel"], largest))
    return "\n".join(parts)


def _cells(one: dict[str, Any], sorts: list[str]) -> list[str]:
    share, total = one["seconds_by_sort"], sum(one["seconds_by_sort"].values()) or 1.0
    return [
        f"{one['seconds']:.3g}",
        f"{one['tokens_per_s']:,.0f}",
        percent(one["mfu"]),
        str(one["num_kernels"]),
        percent(one["idle"]),
        *(percent(share.get(sort, 0.0) / total) for sort in sorts),
        ", ".join(one["gaps"]) + (f" (aim {percent(AIM)})" if one["mfu"] else ""),
    ]


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
