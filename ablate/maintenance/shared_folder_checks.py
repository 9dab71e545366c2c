"""What `doctor` says of a folder that two machines see, once they have tried it between them."""

from collections.abc import Iterator

from ablate.core.doctor_line import Line
from ablate.core.text import data_size
from ablate.store.folder_probe import Findings

LATE_S = 10.0
"""A stage's end is seen so late without a word."""
SKEW_S = 60.0
LITTLE_DISK = 20 * 10**9
ELSEWHERE = "a --root on another file system"
MOUNT = "ablate waits for it; with NFS, `lookupcache=pos` or `actimeo=3` shortens it, and `nocto` is not for a runs/"


def lines(findings: Findings) -> Iterator[Line]:
    """-> one a thing."""
    yield _user(findings)
    yield _commit(findings)
    yield _races(findings)
    yield _delays(findings)
    yield _locks(findings)
    yield _clock(findings)
    yield _room(findings)


def _user(findings: Findings) -> Line:
    here, there = findings.here, findings.there
    if here["uid"] == there["uid"]:
        return Line("ok", "user", f"uid {there['uid']} on {there['host']} as on {here['host']}")
    text = f"uid {there['uid']} on {there['host']}, {here['uid']} on {here['host']}"
    return Line("warning", "user", text, "one uid on both: else neither may write what the other made")


def _commit(findings: Findings) -> Line:
    if not findings.is_whole:
        return Line("problem", "rename, seen there", "a folder was seen before all of it was there", ELSEWHERE)
    if not findings.is_first_kept:
        return Line("problem", "rename, seen there", "a second folder takes the place of the first", ELSEWHERE)
    return Line("ok", "rename, seen there", "whole, and the first one wins")


def _races(findings: Findings) -> Line:
    if findings.num_won_twice:
        text = f"{findings.num_won_twice} of {findings.num_races} files were made by both machines, or by neither"
        return Line("problem", "exclusive create", text, ELSEWHERE)
    return Line("ok", "exclusive create", f"{findings.num_races} files at once, each made by one machine alone")


def _delays(findings: Findings) -> Line:
    names = {
        "afresh": "a new file", "listed": "in a list", "changed": "a changed one", "polled": "one looked for before",
    }  # fmt: skip
    delays = {names[way]: delay for way, delay in findings.delays.items()}
    text = ", ".join(f"{name} after {_seconds(one.median_s)}" for name, one in delays.items())
    worst = max(findings.delays.values(), key=lambda one: one.worst_s).worst_s
    is_late = max(one.worst_s for way, one in findings.delays.items() if way != "polled") > LATE_S
    return Line(
        "warning" if is_late else "ok", "seen there", f"{text}; {_seconds(worst)} at worst", MOUNT if is_late else ""
    )


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _locks(findings: Findings) -> Line:
    return Line("ok", "locks between machines", f"{findings.locks}: none is needed")


def _clock(findings: Findings) -> Line:
    text = f"{findings.skew_s:+.1f} s (within {_seconds(findings.skew_error_s)}) there"
    if abs(findings.skew_s) < SKEW_S + findings.skew_error_s:
        return Line("ok", "clock of the node", text)
    return Line("warning", "clock of the node", text, "`ablate gc` judges by age, and logs are dated: NTP on all nodes")


def _room(findings: Findings) -> Line:
    free = findings.there["free"]
    advice = (
        "" if free >= LITTLE_DISK else "`ablate gc`, or another --root; a quota of /home is often smaller than that"
    )
    return Line("ok" if free >= LITTLE_DISK else "warning", "room there", f"{data_size(free)} free", advice)
