"""The one table of failure classes: what is tried again, when, and what a reader should do."""

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ablate.core.errors import AblateError, Diverged, Interrupted, NetworkIsOff, StageError, without_secrets

NUM_ALIKE = 3
"""So many failures alike in one kind of stage stop that kind."""


@dataclass(frozen=True)
class Failure:
    """How a class of failure is answered. All but a diverged one are tried again by the next `run`."""

    num_retries: int = 0
    """Tries more in this run; counted anew once a try got further than the one before."""
    back_off_s: float = 0.0
    """Before the first retry; doubled each time."""
    is_counted: bool = False
    """Three alike in one kind of stage stop that kind."""
    is_fault: bool = True
    """Of the stage; False: it was stopped and goes on with the same command."""
    is_of_all: bool = False
    """It would not go better with what is not begun yet: that is not started."""
    advice: str = ""


FAILURES: dict[str, Failure] = {
    "ok": Failure(is_fault=False),
    "error": Failure(is_counted=True, advice="the log says more: ablate logs STUDY STAGE"),
    "mismatch": Failure(is_counted=True, advice="the code was changed since the run began: the same command again"),
    "missing_input": Failure(advice="the same command makes it again"),
    "unsound": Failure(is_of_all=True, advice="no number made here can be trusted; the log says more"),
    "other_model": Failure(
        advice="another version of torch or transformers, or a machine that computes wrongly: find out which is right,"
        " then delete the file under runs/checks/models and what was made with the wrong one"
    ),
    "diverged": Failure(is_fault=False, advice="a lower lr, a longer warm-up or max_grad_norm"),
    "oom": Failure(
        num_retries=1,
        back_off_s=1.0,
        is_counted=True,
        advice="a card with more memory, a smaller data.max_length, or --jobs with fewer stages at once",
    ),
    "memory": Failure(
        num_retries=3,
        back_off_s=1.0,
        is_counted=True,
        advice="this machine's memory ran out: --jobs with fewer stages at once, or a larger machine",
    ),
    "limited": Failure(
        is_counted=True,
        advice="`ulimit -v unlimited` before the command, in the script of a batch job too: torch reserves far more"
        " address space than it uses memory",
    ),
    "crowded": Failure(is_counted=True, advice="the log says more; code of a model or task starts them"),
    "unfit": Failure(
        advice="a smaller model or rank, lora instead of every weight, or a machine with more memory; where a cluster"
        " has no such job: what the profile asks for, which `ablate doctor --executor NAME` tries"
    ),
    "network": Failure(num_retries=3, back_off_s=1.0, advice="the same command goes on once the network is back"),
    "offline": Failure(
        is_counted=True,
        advice="what a stage needs is fetched before: name it as a model or data of the study; the log says more",
    ),
    "denied": Failure(advice="ask for access on the repository's page, then `hf auth login` or HF_TOKEN"),
    "missing": Failure(advice="check the name and the revision in the study"),
    "nospace": Failure(
        num_retries=6,
        back_off_s=10.0,  # ten minutes in all
        is_fault=False,
        is_of_all=True,
        advice="make room on the disk of runs/ (`ablate gc` does), then the same command goes on",
    ),
    "disk": Failure(
        num_retries=6,
        back_off_s=10.0,
        is_fault=False,
        advice="the disk of runs/ does not do what it is told; once it does, the same command goes on",
    ),
    "gpu_fault": Failure(num_retries=1, back_off_s=1.0, advice="--gpus leaves the card out"),
    "stalled": Failure(num_retries=1, is_counted=True, advice="the log ends with where it stood"),
    "killed": Failure(num_retries=3, back_off_s=0.5, is_counted=True, advice="dmesg says whether memory ran out"),
    "lost": Failure(num_retries=3, is_fault=False, advice="the worker's machine no longer answers"),
    "preempted": Failure(num_retries=3, back_off_s=0.5, is_fault=False, advice="the same command goes on"),
    "cancelled": Failure(is_fault=False, advice="the same command goes on"),
}


class Ending(NamedTuple):
    """How an attempt ended: a name of `FAILURES`, and one line for a reader."""

    failure: str
    message: str

    @property
    def table(self) -> Failure:
        return FAILURES.get(self.failure, FAILURES["error"])

    @property
    def likeness(self) -> tuple[str, str]:
        """Equal for failures alike: numbers, keys and paths do not count."""
        return self.failure, without_particulars(self.message)


def without_particulars(message: str) -> str:
    """-> what is equal in the messages of failures alike."""
    return re.sub(r"\S*/\S+|\b[0-9a-f]{8,}\b|\d+", "#", message)


# by name, because the libraries that raise them are not to be imported here
BY_NAME = {
    "OutOfMemoryError": "oom",
    "GatedRepoError": "denied",
    "RepositoryNotFoundError": "missing",
    "RevisionNotFoundError": "missing",
    "LocalEntryNotFoundError": "network",
    "EntryNotFoundError": "missing",
    "AcceleratorError": "gpu_fault",
}
BY_PACKAGE = dict.fromkeys(("httpx", "httpx2", "httpcore", "requests", "urllib3"), "network")
BY_ERRNO = {
    errno.ENOSPC: "nospace",
    errno.EDQUOT: "nospace",
    errno.EFBIG: "nospace",
    errno.EIO: "disk",
    errno.ESTALE: "disk",
    errno.EROFS: "disk",
    errno.EMFILE: "disk",
    errno.ENFILE: "disk",
    errno.ENOMEM: "oom",
}
# a failed assertion in a kernel is a program's error, and says nothing of the card
BY_WORDS = {
    "out of memory": "oom",
    "can't allocate memory": "oom",
    "device-side assert": "error",
    "CUDA error": "gpu_fault",
}


def ending_of(error: BaseException) -> Ending:
    """What was raised, or what caused it -> how the attempt ended."""
    classes = [name for cause in _causes(error) if (name := _class_of(cause))]
    if "offline" in classes:  # libraries take it for an outage, and wrap it in errors of their own
        return Ending("offline", _one_line(error))
    return Ending(next(iter(classes), "error"), _one_line(error))


def is_of_disk(error: OSError) -> bool:
    """Whether it may pass once there is room, or the disk is well again."""
    return BY_ERRNO.get(error.errno or 0) in ("nospace", "disk")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _class_of(error: BaseException) -> str | None:
    match error:
        case StageError():
            return error.failure
        case Diverged():
            return "diverged"
        case Interrupted():
            return "preempted"
        case NetworkIsOff():
            return "offline"
        case MemoryError():
            return "oom"
        case ConnectionError() | TimeoutError():
            return "network"
        case OSError() if error.errno in BY_ERRNO:
            return BY_ERRNO[error.errno]
        case RuntimeError() if words := next((words for words in BY_WORDS if words in str(error)), None):
            return BY_WORDS[words]
    return _class_by_name(type(error))


def _class_by_name(error: type[BaseException]) -> str | None:
    for base in error.__mro__:
        if failure := BY_NAME.get(base.__name__) or BY_PACKAGE.get(base.__module__.partition(".")[0]):
            return failure
    return None


def _one_line(error: BaseException) -> str:
    text = " ".join(without_secrets(str(error)).split())[:1000]
    if isinstance(error, AblateError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
