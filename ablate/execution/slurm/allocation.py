"""An allocation of Slurm's that this process runs in: what it holds, and where `run` places stages in it."""

import re
import time
from collections.abc import Mapping
from typing import NamedTuple

from ablate.core.errors import AblateError

BYTES_PER_JOB = 4 << 30
"""Memory for one more stage at once, where there is no card."""


class Allocation(NamedTuple):
    """A job of salloc's or sbatch's."""

    job: str
    num_nodes: int = 1
    num_cpus: int = 1
    num_cards: int = 0
    memory_bytes: int | None = None
    ends_at: float | None = None
    """By time.time()."""

    def cpus_of(self, cards: int) -> int:
        """-> of a pilot with so many cards: its share, or one where there are no cards."""
        return max(1, self.num_cpus * cards // self.num_cards) if self.num_cards else 1

    def num_pilots(self, cpus: int, cards: int) -> int:
        """-> how many fit at once: one for each so many cards of a node, else as processors and memory allow.

        Raises AblateError where no node has so many cards.
        """
        if self.num_cards:
            of_node = self.num_cards // self.num_nodes
            if cards > max(1, of_node):
                raise AblateError(f"cards: {cards} of a step is more than a node of this allocation has ({of_node})")
            return max(1, of_node // cards * self.num_nodes) if cards > 1 else self.num_cards
        by_memory = self.memory_bytes // BYTES_PER_JOB if self.memory_bytes else self.num_cpus
        return max(1, min(self.num_cpus // cpus, by_memory))


def default_profile(environ: Mapping[str, str]) -> str:
    """-> where `run` places stages when nobody says: "srun" on the nodes of an allocation, "local" on this machine.

    An allocation of one node is this machine, with its cards; but a shell of salloc's may be on a login node still,
    which is none of the allocation's (slurmd says on which node it has started something).
    """
    if not job_of(environ):
        return "local"
    num_nodes = environ.get("SLURM_JOB_NUM_NODES") or environ.get("SLURM_NNODES") or "1"
    return "srun" if num_nodes != "1" or "SLURMD_NODENAME" not in environ else "local"


def job_of(environ: Mapping[str, str]) -> str:
    """-> Slurm's number of the allocation that a process runs in; empty in none."""
    return environ.get("SLURM_JOB_ID", "")


def read(job: str, answer: str) -> Allocation:
    """-> what an answer of `scontrol --details show job` says of one; what it does not say is left at its least."""
    fields = dict(re.findall(r"(\w+)=(\S+)", answer))
    num_nodes = _number(fields.get("NumNodes", "")) or 1
    cards = re.findall(r"gpu(?::[^:,(]+)?:(\d+)", fields.get("JOB_GRES", ""))
    return Allocation(
        job,
        num_nodes,
        _number(fields.get("NumCPUs", "")) or num_nodes,
        sum(map(int, cards)),
        _memory_bytes(fields.get("TRES", "") or fields.get("AllocTRES", "")),
        _timestamp(fields.get("EndTime", "")),
    )


def _number(text: str) -> int:
    match = re.match(r"\d+", text)
    return int(match[0]) if match else 0


def _memory_bytes(trackable: str) -> int | None:
    """cpu=8,mem=4G,node=2 -> bytes."""
    match = re.search(r"mem=([\d.]+)([KMGT])", trackable)
    return int(float(match[1]) * 1024 ** (1 + "KMGT".index(match[2]))) if match else None


def _timestamp(text: str) -> float | None:
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None
