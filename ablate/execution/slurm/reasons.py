"""What Slurm says of a job, and what it means: the words that it has for states, for waiting, and for the end."""

import re

from ablate.core.failures import Ending

QUEUED = frozenset({
    "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT", "POWER_UP_NODE",
})  # fmt: skip
OVER = frozenset({
    "COMPLETED", "FAILED", "TIMEOUT", "DEADLINE", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "LAUNCH_FAILED",
    "RECONFIG_FAIL", "OUT_OF_MEMORY", "CANCELLED", "REVOKED",
})  # fmt: skip
"""Of a job that ended; any other state than these is of one that has a node, or has not left it yet (`man squeue`, JOB
STATE CODES, of 21.08 to 25.05).
"""

_CLASSES = {
    "TIMEOUT": "preempted",
    "DEADLINE": "preempted",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "lost",
    "BOOT_FAIL": "lost",
    "LAUNCH_FAILED": "lost",
    "RECONFIG_FAIL": "lost",
    "REVOKED": "lost",
    "OUT_OF_MEMORY": "memory",
    "CANCELLED": "cancelled",
}
"""State -> class of failure of what the job was at; a job that ended otherwise was killed, for all that is known."""

_OF_THE_JOB = re.compile(
    r"BadConstraints|Invalid(Account|QOS)|(Account|QOS)NotAllowed|DependencyNeverSatisfied|JobHoldMaxRequeue|DeadLine"
    r"|MaxMemPerLimit|(QOS|Assoc)Max\w*(PerJob|PerNode|WallDuration)\w*|QOSMin\w*|QOSUsageThreshold|InactiveAccount"
)
"""Reasons that no waiting mends: the job asks for what it cannot have."""
_OF_A_PARTITION = re.compile(r"Partition(TimeLimit|NodeLimit|Config)")
"""The same of one partition; of a job that may go to several it says nothing of the others."""
_LAUNCH_FAILED = re.compile(r"launch.failed.requeued.held")
"""Slurm's own hold, after a node could not begin the job: the node is drained, the job waits for a word."""

_WAITING = {
    "JobHeldUser": "held; `scontrol release {id}` lets it go",
    "JobHeldAdmin": "held by an administrator of the cluster",
    "BeginTime": "it was requeued, or is to begin later",
    "Resources": "waits for a free node",
    "Priority": "waits behind others",
    "ReqNodeNotAvail": "the nodes that it may have are down or reserved",
    "PartitionConfig": "its partition allows no such job: time, nodes, account",
    "PartitionTimeLimit": "its partition allows no job so long",
    "None": "not looked at by the scheduler yet",
}


def is_hopeless(reason: str, *, is_of_many_partitions: bool = False) -> bool:
    """Whether a queued job waits for what never comes."""
    word = _word(reason)
    if _OF_THE_JOB.fullmatch(word):
        return True
    return not is_of_many_partitions and _OF_A_PARTITION.fullmatch(word) is not None


def is_held_by_slurm(reason: str) -> bool:
    return _LAUNCH_FAILED.fullmatch(reason.strip()) is not None


def waiting(reason: str, job: str) -> str:
    """-> why a job is not running yet, in words and in Slurm's: waits for a free node (Resources)."""
    known = _WAITING.get(_word(reason))
    return f"{known.format(id=job)} ({reason})" if known else reason


def over(state: str, reason: str) -> str:
    """-> how a job ended, in Slurm's words: FAILED (NonZeroExitCode)."""
    return state if reason in ("None", "") else f"{state} ({reason})"


def ending(state: str, job: str, node: str) -> Ending | None:
    """-> how the end of a job counts for what it was at; None: a kill as any other."""
    failure = _CLASSES.get(state)
    return Ending(failure, f"Slurm's job {job}{f' on {node}' if node else ''}: {state}") if failure else None


def _word(reason: str) -> str:
    """ReqNodeNotAvail,_UnavailableNodes:n7 -> ReqNodeNotAvail."""
    return re.split(r"[,:( ]", reason.strip())[0]
