"""What squeue and sacct answer, read line by line; an answer that is none of theirs is not taken for one."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from ablate.execution.pilots.cluster import JobStatus, Unreachable
from ablate.execution.slurm import reasons

COLUMNS = (
    ("JobArrayID", 64), ("State", 32), ("RestartCnt", 16), ("BatchHost", 128), ("Reason", 192), ("Comment", 256),
)  # fmt: skip
"""Field of squeue's `--Format`, and its width in characters, wider than what Slurm puts there.

Columns of fixed widths are what Slurm 20 to 25 have in common: `--json` changes its shape with the version, ignores
filters in 21 and 22 (so that it asks for the jobs of all users), and is not built everywhere; in `--format` there is
no letter for restarts, and a separator may stand in a field.
"""
FORMAT = ",".join(f"{name}:{width}" for name, width in COLUMNS)
_ENDS = list(accumulate(width for _, width in COLUMNS))
_STARTS = [0, *_ENDS[:-1]]
_TOKENS = re.compile(r"(ablate-[0-9a-f]+)-(\d+)(?: to (\d+))?")

_ID = re.compile(r"\d+([_+]\d+)?")
"""A job's, a task's of an array, a part's of a heterogeneous job, which none of ours is."""
_STATE = re.compile(r"[A-Z_]+")
_SUBMITTED = re.compile(r"^(\d+)(;\S*)?\s*$", re.MULTILINE)


class Row(NamedTuple):
    """A job, or a task of an array, as squeue lists it."""

    id: str
    state: str
    num_restarts: int
    node: str
    reason: str
    token: str


def name(study: str) -> str:
    """-> of the jobs of a study."""
    return f"ablate-{study}"


def comment(tokens: Sequence[str]) -> str:
    """-> what names consecutive jobs, in one line that squeue shows: ablate-1a2b3c4d-17 to 19."""
    last = tokens[-1].rpartition("-")[2]
    return tokens[0] if len(tokens) == 1 else f"{tokens[0]} to {last}"


def rows(answer: str) -> list[Row]:
    """-> the jobs of ours in an answer of squeue with its header. Raises Unreachable where it is none.

    Without the header an answer that was lost on the way would look like an empty queue.
    """
    header, *lines = answer.splitlines() or [""]
    if not all(header[start : start + 1].strip() for start in _STARTS):
        raise Unreachable(f"squeue gave an answer that cannot be read: {_shortened(answer)}")
    listed = [_row(line) for line in lines if line.strip()]
    return [row for row in listed if row is not None]


def _row(line: str) -> Row | None:
    """None: it is another's job, of whatever sort."""
    job, state, restarts, node, reason, words = _cells(line)
    if not _STATE.fullmatch(state) or not _ID.fullmatch(job) or not restarts.isdecimal():
        raise Unreachable(f"squeue gave a line that cannot be read: {_shortened(line)}")
    token = _token(words, job)
    return Row(job, state, int(restarts), "" if node == "n/a" else node, reason, token) if token else None


def _cells(line: str) -> list[str]:
    return [line[start:end].strip() for start, end in zip(_STARTS, _ENDS, strict=True)]


def _token(words: str, job: str) -> str | None:
    """-> which of the jobs that a comment names this one is: an array's tasks count from 0."""
    match = _TOKENS.fullmatch(words)
    if not match:
        return None  # another's
    family, first, last = match.groups()
    place = int(job.partition("_")[2] or 0)
    return f"{family}-{int(first) + place}" if last or place == 0 else None


def status(row: Row, *, is_of_many_partitions: bool = False) -> JobStatus:
    """-> what a line says of a job, as any cluster would.

    A state that no Slurm had yet is no end: those are as old as Slurm, what comes with new versions lies before them.
    """
    if row.state not in reasons.QUEUED | reasons.OVER:
        why = "" if row.state == "RUNNING" else row.state.lower()
        return JobStatus("running", row.id, row.node, row.num_restarts, why)
    if row.state in reasons.QUEUED:
        why = reasons.waiting(row.reason, row.id)
        is_hopeless = reasons.is_hopeless(row.reason, is_of_many_partitions=is_of_many_partitions)
        return JobStatus("queued", row.id, "", row.num_restarts, why, is_hopeless)
    why = reasons.over(row.state, row.reason)
    ending = reasons.ending(row.state, row.id, row.node)
    return JobStatus("over", row.id, row.node, row.num_restarts, why, ending=ending)


def by_token(listed: Sequence[Row]) -> dict[str, Row]:
    """-> the job of each token; of several, one that is not over comes first, then the latest."""

    def rank(row: Row) -> tuple[bool, int]:
        return row.state not in reasons.OVER, int(row.id.partition("_")[0])

    return {row.token: row for row in sorted(listed, key=rank)}


def together(ids: Iterable[str]) -> list[str]:
    """-> the same jobs for scancel, which sends a message for each word: 7_1, 7_3, 9 -> 7_[1,3], 9."""
    tasks: dict[str, list[str]] = {}
    for job, _, task in (id_.partition("_") for id_ in ids):
        tasks.setdefault(job, []).extend([task] if task else [])
    return [f"{job}_[{','.join(those)}]" if those else job for job, those in tasks.items()]


def submitted(answer: str) -> str:
    """-> the id in an answer of `sbatch --parsable`, below whatever a site has it say before; empty without one."""
    return next((match[1] for match in _SUBMITTED.finditer(answer)), "")


STEPS = ("--noheader", "--steps", "--Format", "StepID:64,StepName:256,Nodes:128")


def steps(answer: str) -> dict[str, JobStatus]:
    """-> by token, the steps of ours in an answer of squeue: those that run. A step is named as its token says."""
    running: dict[str, JobStatus] = {}
    for line in answer.splitlines():
        step, name, node = line[:64].strip(), line[64:320].strip(), line[320:].strip()
        if _TOKENS.fullmatch(name):
            running[name] = JobStatus("running", step, node)
    return running


SACCT_FORMAT = "JobID,State,NodeList"


def accounted(answer: str) -> Iterator[tuple[str, JobStatus]]:
    """-> id and end of the jobs in an answer of sacct in columns with bars; those that are not over are left out."""
    for line in answer.splitlines():
        job, _, rest = line.partition("|")
        words, _, node = rest.partition("|")
        state = words.partition(" ")[0].rstrip("+")  # CANCELLED by 1000
        if state in reasons.OVER:
            who = f" by user {words.rpartition(' ')[2]}" if words.startswith("CANCELLED by ") else ""
            node = "" if node.startswith("None") else node
            yield job, JobStatus("over", job, node, why=f"{state}{who}", ending=reasons.ending(state, job, node))


def array_limit(answer: str) -> int:
    """-> most tasks of an array, of an answer of `scontrol show config`."""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer, re.MULTILINE)
    if not match:
        raise Unreachable(f"scontrol gave an answer that cannot be read: {_shortened(answer)}")
    tasks = re.findall(r"\bmax_array_tasks=(\d+)", answer)  # of SchedulerParameters; indices are below the other
    return max(1, min(map(int, [match[1], *tasks])))


def _shortened(text: str) -> str:
    words = " ".join(text.split())
    return repr(words[:120]) if words else "nothing"
