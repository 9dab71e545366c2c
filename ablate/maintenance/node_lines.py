"""What `doctor --executor` tells of nodes: each beside this machine, and two of them between themselves."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ablate.core.doctor_line import Line
from ablate.machine.slots import Slot
from ablate.maintenance.node_visit import lines_of
from ablate.stages.machine_check import findings_in


def compared(node: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[Line]:
    """-> a node beside this machine: what results may depend on, and where models are found."""
    host = node["host"]
    yield Line("ok", host, f"{node['device']}, {node['cores']} cores, {node['memory_bytes'] >> 30} GiB")
    there, ours = ({"python": one["python"], **one["versions"]} for one in (node, here))
    other = [
        f"{name} {there.get(name, 'not there')} ({ours.get(name, 'not')} here)"
        for name in dict.fromkeys([*there, *ours])
        if there.get(name) != ours.get(name)
    ]
    if other:
        advice = "one environment for all machines: results of other versions differ in their last digits"
        yield Line("warning", f"libraries of {host}", ", ".join(other), advice)
    else:
        yield Line("ok", f"libraries of {host}", f"python {node['python']} and all else as here")
    yield _hub_cache(host, node["hub_cache"], here["hub_cache"])


def _hub_cache(host: str, there: Sequence[Any], here: Sequence[Any]) -> Line:
    what = f"models on {host}"
    if list(there) == list(here):
        return Line("ok", what, f"found where they are fetched to, {here[0]}")
    advice = "HF_HOME, in this environment and in the job's, on a file system that both see"
    if there[0] == here[0]:
        return Line("warning", what, f"{there[0]} is another folder there than here, or none", advice)
    return Line("warning", what, f"looked for in {there[0]}; they are fetched to {here[0]}", advice)


def cards(node: Mapping[str, Any], slot: Slot) -> Iterator[Line]:
    """-> the cards that a job saw, beside what its profile says of them: by that stages are placed."""
    sizes: Sequence[int] = node.get("card_bytes", [])
    if not sizes:
        return
    what = f"cards of a job on {node['host']}"
    text = f"{len(sizes)} x {node['device']}, {min(sizes) / 1e9:.1f} GB"
    if len(sizes) < slot.num_gpus:
        advice = "as many as `cards` says, by gres, num_gpus or the node's own configuration"
        yield Line("problem", what, f"{text}; the profile says {slot.num_gpus}", advice)
    elif len(sizes) > slot.num_gpus:
        yield Line(
            "warning", what, f"{text}, of which a stage uses {slot.num_gpus}", f"cards: {len(sizes)}, or one a job"
        )
    elif slot.memory_bytes is None:
        advice = f"memory_bytes: {min(sizes)}, and what is too large is known before it is sent"
        yield Line("ok", what, text, advice)
    elif slot.memory_bytes > min(sizes):
        advice = f"memory_bytes: {min(sizes)}"
        yield Line("warning", what, f"{text}; the profile says {slot.memory_bytes / 1e9:.1f} GB", advice)
    else:
        yield Line("ok", what, text)


def between(nodes: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    """-> what two nodes have found out about the folder that both see."""
    hosts = {node["host"] for node in nodes}
    if len(nodes) > 1 and len(hosts) == 1:
        yield Line("ok", "between two nodes", f"not tried: both jobs ran on {hosts.pop()}")
    for node in nodes:
        for other, record in node["between"].items():
            findings = record if isinstance(record, str) else findings_in(record)
            yield from lines_of(findings, f"{other} and {node['host']}")
