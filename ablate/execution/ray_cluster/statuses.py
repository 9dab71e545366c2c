"""What Ray's records of actors and nodes mean for pilot jobs; no Ray is needed to read them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ablate.core.failures import Ending
from ablate.core.values import Frozen
from ablate.execution.pilots.cluster import JobStatus

WORDS = 300
"""Of an actor's last words are shown; Ray's own run on with advice."""
ENDINGS = {
    "RAY_KILL": "cancelled",
    "NODE_DIED": "lost",
    "NODE_LEFT": "preempted",
    "OUT_OF_MEMORY": "memory",
    "CREATION": "error",
}
"""Cause of an actor's death -> class of failure of what it was at. A process that died alone counts as killed."""
GROWS = "it waits for one to come, as `autoscaling: true` says"


class Actor(Frozen):
    """What the control service knows of one actor."""

    name: str
    """The token of its job."""
    state: str
    """DEPENDENCIES_UNREADY, PENDING_CREATION, ALIVE, RESTARTING or DEAD."""
    node: str
    """Id; empty until it has one."""
    num_restarts: int
    cause: str = ""
    """Of its death: one of ENDINGS, WORKER_DIED, or another word of Ray's."""
    words: str = ""
    """Of its death, in Ray's words."""
    ended_at: int = 0
    """By the control service's clock, in ms; 0 while it lives."""


class Node(Frozen):
    """One machine of the cluster, dead or alive."""

    id: str
    address: str
    is_alive: bool
    resources: dict[str, float]
    """In all, taken or not: GPU, CPU, memory (bytes), and those that are named."""


class Census(Frozen):
    """All that is asked for at a look."""

    actors: tuple[Actor, ...]
    nodes: tuple[Node, ...]


def statuses(census: Census, asked: Mapping[str, float], hope: str) -> dict[str, JobStatus]:
    """-> what is known of every job, by token.

    `asked`: the resources that each asks for. `hope`: why a node that can meet them may still come; empty: none will.
    """
    nodes = {node.id: node.address for node in census.nodes}
    why, is_hopeless = _waiting(living(census.nodes), asked, hope)
    by_token: dict[str, JobStatus] = {}
    for actor in sorted(census.actors, key=_is_newer):  # a folder that was removed and made again has its tokens again
        node = nodes.get(actor.node, "")
        if actor.state == "DEAD":
            by_token[actor.name] = _over(actor, node)
        elif actor.state == "ALIVE":
            by_token[actor.name] = JobStatus("running", actor.name, node, actor.num_restarts)
        else:
            by_token[actor.name] = JobStatus("queued", actor.name, why=why, is_hopeless=is_hopeless)
    return by_token


def _is_newer(actor: Actor) -> tuple[bool, int]:
    """-> what sorts actors of one name: the one that lives comes last, before it the one that died last."""
    return actor.state != "DEAD", actor.ended_at


def _over(actor: Actor, node: str) -> JobStatus:
    why = actor.words if len(actor.words) <= WORDS else f"{actor.words[:WORDS]}..."
    failure = ENDINGS.get(actor.cause)
    ending = Ending(failure, f"Ray: {why}") if failure else None
    return JobStatus("over", actor.name, node, actor.num_restarts, why, ending=ending)


def _waiting(nodes: Sequence[Node], asked: Mapping[str, float], hope: str) -> tuple[str, bool]:
    """-> why a job waits, and whether it waits for what never comes."""
    problem = problem_of(nodes, asked)
    if problem is None:
        return f"waits for a node with {_words(asked)} free" if asked else "waits for a node", False
    return (f"{problem}: {hope}", False) if hope else (problem, True)


def living(nodes: Iterable[Node]) -> list[Node]:
    """-> those that are not dead."""
    return [node for node in nodes if node.is_alive]


def problem_of(nodes: Sequence[Node], asked: Mapping[str, float]) -> str | None:
    """-> why no node can ever have a job, or None."""
    if any(all(node.resources.get(name, 0) >= amount for name, amount in asked.items()) for node in nodes):
        return None
    return f"a job asks for {_words(asked)}, and no node of the Ray cluster has as much ({offers(nodes, asked)})"


def offers(nodes: Sequence[Node], asked: Mapping[str, float]) -> str:
    """-> 2 nodes with 4 GPU, 8 CPU; 1 node with 0 GPU, 64 CPU."""
    alike = Counter(_words({name: node.resources.get(name, 0) for name in asked}) for node in nodes)
    return "; ".join(f"{num} node{'s' * (num > 1)} with {words}" for words, num in alike.items()) or "there is none"


def _words(resources: Mapping[str, float]) -> str:
    """-> 1 GPU, 8 CPU, 64 GiB memory."""
    return ", ".join(f"{_amount(name, amount)} {name}" for name, amount in resources.items())


def _amount(name: str, amount: float) -> str:
    return f"{amount / (1 << 30):g} GiB" if name == "memory" else f"{amount:g}"
