"""Where an attempt is at work, or waits to be, by what lies in its folder: any machine that sees it can tell."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ablate.execution.executors.base import LOCAL
from ablate.execution.profiles import profile_in
from ablate.execution.workers import host_of
from ablate.store.attempt import Attempt


class Whereabouts(NamedTuple):
    """Where, in the words of the user's profiles and of the cluster."""

    profile: str
    kind: str
    slot: str = ""
    job: str = ""
    """As the cluster's own commands take it; empty on this machine, and before the cluster has a name for it."""
    node: str = ""
    """Empty until a worker has come."""
    is_queued: bool = False
    """It waits for a job of its cluster to begin."""
    queued_s: float | None = None
    why: str = ""
    """Why it still waits, in the cluster's words."""

    def __str__(self) -> str:
        where = self.slot if self.kind == LOCAL else f"{self.profile} job {self.job}" if self.job else self.profile
        if self.is_queued:
            return f"{where} queued" + (f" ({self.why})" if self.why else "")
        return f"{where} on {self.node}" if self.node else where


def whereabouts(attempt: Attempt) -> Whereabouts | None:
    """-> where an attempt is; None before it is handed out."""
    request = attempt.request
    if request is None:
        return None
    profile, slot, node = profile_in(request), str(request.get("slot", {}).get("name", "")), host_of(attempt) or ""
    if profile.kind == LOCAL:
        return Whereabouts(profile.name, profile.kind, slot, node=node)
    return Whereabouts(profile.name, profile.kind, slot, node=node)


class ProfileCount(NamedTuple):
    """What is at work in one profile."""

    profile: str
    kind: str
    num_running: int
    num_queued: int
    why: str
    """Why most of them wait."""

    def __str__(self) -> str:
        why = f" ({self.why})" if self.why else ""
        queued = f"{self.num_queued} queued{why}" if self.num_queued else ""
        running = f"{self.num_running} running" if self.num_running or not queued else ""
        return f"{self.profile}: {', '.join(filter(None, [running, queued]))}"


def by_profile(places: Iterable[Whereabouts]) -> list[ProfileCount]:
    """-> for each profile, in the order of their names, how many stages run in it, how many wait, and why."""
    known = list(places)
    return [_counted(profile, kind, known) for profile, kind in sorted({(one.profile, one.kind) for one in known})]


def _counted(profile: str, kind: str, places: Sequence[Whereabouts]) -> ProfileCount:
    own = [one for one in places if one.profile == profile]
    queued = [one for one in own if one.is_queued]
    whys = Counter(one.why for one in queued if one.why)
    return ProfileCount(profile, kind, len(own) - len(queued), len(queued), whys.most_common(1)[0][0] if whys else "")
