"""A driver that is made to run by itself: started, waited for until it drives, and remembered, so that it can be ended.

Nothing is lost where it does not come up: whatever it said is told, and the same command can be given again.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ablate.core import disk, plain_files
from ablate.core.errors import AblateError, HeldError
from ablate.execution import driver_records
from ablate.execution.detached.driver_host import DRIVER_HOSTS, DriverCommand, DriverHost
from ablate.execution.driver_records import DriverWatch, Sighting
from ablate.execution.executors.base import offline, python_path
from ablate.execution.pilots.cluster import JobStatus, Refused, Unreachable
from ablate.execution.profiles import Profile
from ablate.store.store import Store

FIELDS = frozenset({"profile", "kind", "options", "job"})
"""Of detached.json."""
LOOK_S = 0.2
ASK_S = 2.0
"""Between two questions to a cluster."""
QUEUE_S = 60.0
"""So long a driver is waited for that stands in a cluster's queue; it will run by itself all the same."""
UNSEEN_S = 120.0
"""So long one is waited for that a cluster has begun, or is silent about, and that nobody sees drive."""


class Detached(NamedTuple):
    """A driver that was started."""

    who: str
    """pid 7 on host; Slurm job 1234 of profile a100."""
    log: Path
    waits: str = ""
    """Why it is still in the queue of its cluster; empty once it drives."""
    unseen: str = ""
    """What is known of one that has left the queue, and was not seen to drive."""


class Ended(NamedTuple):
    """A driver that ended before it drove, or so soon that nobody saw it."""

    text: str
    """What it printed."""
    exit_code: int


def run_log(store: Store, study: str) -> Path:
    """-> what the detached drivers of a study print, one after another."""
    return store.study_folder(study) / "run.log"


def host_of(profile: Profile) -> DriverHost:
    """Raises AblateError for a kind of profile that can host no driver."""
    if profile.kind not in DRIVER_HOSTS:
        raise AblateError(
            f"--detach: the driver goes where the first profile of --executor is, and {profile.name!r} is of kind"
            f" {profile.kind!r}, where none can run. Possible kinds: {', '.join(DRIVER_HOSTS)}. With `local` first it"
            " runs on this machine"
        )
    return DRIVER_HOSTS[profile.kind](profile)


def detach(
    store: Store, study: str, profile: Profile, words: Sequence[str], say: Callable[[str], None]
) -> Detached | Ended:
    """Starts a command as the driver of a study. Returns once it drives, or stands in a queue.

    Raises HeldError when another waits in a queue already, AblateError for one that the cluster would never begin.
    """
    host = host_of(profile)
    require_none_queued(store, study)
    disk.make_folder(store.study_folder(study))
    log = run_log(store, study)
    printed = _size(log)
    environment = (offline(os.environ) if host.is_cluster else dict(os.environ)) | {"PYTHONPATH": python_path()}
    command = DriverCommand(study, words, Path.cwd(), log, environment)
    job = _submitted(host, command, profile)
    try:
        _remember(store, study, profile, job)
        return _awaited(store, study, host, job, printed, say)
    except KeyboardInterrupt:
        _take_back(host, job)
        raise


def _submitted(host: DriverHost, command: DriverCommand, profile: Profile) -> str:
    try:
        return host.submit_driver(command)
    except Refused as error:
        raise AblateError(f"profile {profile.name!r} takes no driver: {error}") from error
    except Unreachable as error:
        raise AblateError(
            f"it is not known whether profile {profile.name!r} has taken the driver ({error}): `ablate status` tells"
            " once it runs; the same command again does no harm, one driver alone has a study"
        ) from error


def _awaited(
    store: Store, study: str, host: DriverHost, job: str, printed: int, say: Callable[[str], None]
) -> Detached | Ended:
    log, watch, begun_at, ask_at = run_log(store, study), DriverWatch(store, study), time.monotonic(), 0.0
    status: JobStatus | None = None
    before = ""
    while True:
        seen = watch.look()
        if seen and seen.is_sure and host.is_driver(job, seen.record) and _has_beaten(store, study, seen):
            return Detached(str(seen), log)
        now = time.monotonic()
        if now >= ask_at:
            ask_at, status = now + (ASK_S if host.is_cluster else LOOK_S), _status(host, job) or status
        if status and status.phase == "over":
            if _has_driven(store, study, host, job):
                return Detached(host.describe(job), log, unseen="has ended already: its last lines say how")
            return Ended(_text_from(log, printed) or f"{host.describe(job)} ended: {status.why}", host.exit_code(job))
        if status and status.is_hopeless:
            _take_back(host, job)
            raise AblateError(f"{host.describe(job)} would wait for ever, and was taken back: {status.why}")
        if host.is_cluster and now - begun_at > UNSEEN_S:
            return Detached(host.describe(job), log, unseen=_unseen(status))
        if status and status.phase == "queued":
            if now - begun_at > QUEUE_S:
                return Detached(host.describe(job), log, status.why or "no reason is told")
            if status.why != before:
                before = status.why
                say(f"{host.describe(job)} is in the queue: {status.why}")
        time.sleep(LOOK_S)


def _has_driven(store: Store, study: str, host: DriverHost, job: str) -> bool:
    """Whether a cluster's driver has driven, and left by itself, between two looks: its exit code is not known."""
    record = driver_records.last_record(store, study)
    return host.is_cluster and record is not None and record.has_left and host.is_driver(job, record)


def _unseen(status: JobStatus | None) -> str:
    if status is None:
        return "its cluster has said nothing about yet"
    node = f" on {status.node}" if status.node else ""
    return (
        f"runs{node}, and nothing is seen of it here: is the folder there the same disk? `ablate doctor --executor`"
        " tries it"
    )


def _take_back(host: DriverHost, job: str) -> None:
    try:
        host.cancel_driver(job)
    except Unreachable as error:
        who = host.describe(job)
        raise AblateError(f"{who} could not be taken back ({error}): `ablate stop` does that later") from error


def _has_beaten(store: Store, study: str, seen: Sighting) -> bool:
    """Whether the heartbeat is of this driver, by the file system's own clock."""
    try:
        beaten_at = driver_records.heartbeat_of(store, study).stat().st_mtime_ns
        return beaten_at >= seen.record.path.stat().st_mtime_ns
    except OSError:
        return False


def _status(host: DriverHost, job: str) -> JobStatus | None:
    try:
        return host.status(job)
    except Unreachable:
        return None


# afterwards


class Queued(NamedTuple):
    """A driver that stands in its cluster's queue, or whose job has begun and drives nothing."""

    who: str
    why: str
    """It waits, in the cluster's words."""
    has_begun: bool = False

    def __str__(self) -> str:
        if self.has_begun:
            return f"{self.who}, which has begun or is to end, and drives nothing now"
        return f"{self.who}, which is in the queue ({self.why or 'no reason is given'})"


def queued(store: Store, study: str) -> Queued | None:
    """-> the driver of a study that will come from a queue, also between two turns of it; None where none is known."""
    coming = expected(store, study)
    return None if coming and coming.has_begun else coming


def expected(store: Store, study: str) -> Queued | None:
    """-> the same, or one whose job is there: it begins, or ends, perhaps to be queued again. Asks the cluster."""
    remembered = _to_be_asked_about(store, study)
    if remembered is None:
        return None
    host, job = remembered
    status = _status(host, job)
    if status is None or status.phase == "over":
        return None
    return Queued(host.describe(job), status.why, status.phase == "running")


def require_none_queued(store: Store, study: str) -> None:
    """Raises HeldError where a detached driver, other than this process, stands in a cluster's queue."""
    if driver_records.JOB not in os.environ and (waiting := queued(store, study)):
        raise HeldError(
            f"study {study!r} is to be run by {waiting}: `ablate status --watch` shows how it goes, `ablate stop` takes"
            " it back"
        )


def cancel(store: Store, study: str, *, is_to_wait: bool) -> None:
    """Ends the job that a cluster has of a study's driver.

    `is_to_wait`: not where it runs, since its driver has ended in order and writes the report. Raises Unreachable.
    """
    remembered = _to_be_asked_about(store, study)
    if remembered is None:
        return
    host, job = remembered
    status = host.status(job)
    if status and (status.phase == "queued" or (status.phase == "running" and not is_to_wait)):
        host.cancel_driver(job)


def _remember(store: Store, study: str, profile: Profile, job: str) -> None:
    record = {"profile": profile.name, "kind": profile.kind, "options": dict(profile.options), "job": job}
    disk.write_sealed(_place(store, study), record)


def _to_be_asked_about(store: Store, study: str) -> tuple[DriverHost, str] | None:
    """-> the job of a study's driver, None where no cluster has one, or it has ended for good: the cluster may be gone
    by now, and would be asked at every look.
    """
    remembered = _remembered(store, study)
    if remembered is None or not remembered[0].is_cluster:
        return None
    host, job = remembered
    return remembered if host.comes_back or not _has_driven(store, study, host, job) else None


def _remembered(store: Store, study: str) -> tuple[DriverHost, str] | None:
    record = disk.read_sealed(_place(store, study), FIELDS)
    if record is None or record["kind"] not in DRIVER_HOSTS:
        return None
    return DRIVER_HOSTS[record["kind"]](Profile(record["profile"], record["kind"], record["options"])), record["job"]


def _place(store: Store, study: str) -> Path:
    return store.study_folder(study) / "detached.json"


def _size(path: Path) -> int:
    return path.stat().st_size if plain_files.is_file(path) else 0


def _text_from(path: Path, begin: int) -> str:
    """-> what was added to a log since it had so many bytes."""
    if not plain_files.is_file(path):
        return ""
    with plain_files.opened(path) as file:
        file.seek(begin)
        return file.read().decode(errors="replace").rstrip()
