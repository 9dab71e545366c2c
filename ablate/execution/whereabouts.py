"""Where an attempt is at work, or waits to be, by what lies in its folder: any machine that sees it can tell."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ablate.core import disk
from ablate.core.text import duration
from ablate.execution.executors.base import LOCAL
from ablate.execution.pilots.pilot_job import PilotJob
from ablate.execution.pilots.pilot_pool import place_of
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
            queued = "queued" if self.queued_s is None else f"queued {duration(self.queued_s)}"
            return f"{where} {queued}" + (f" ({self.why})" if self.why else "")
        return f"{where} on {self.node}" if self.node else where


def whereabouts(attempt: Attempt) -> Whereabouts | None:
    """-> where an attempt is; None before it is handed out."""
    request = attempt.request
    if request is None:
        return None
    profile, slot, node = profile_in(request), str(request.get("slot", {}).get("name", "")), host_of(attempt) or ""
    here = Whereabouts(profile.name, profile.kind, slot, node=node)
    place = place_of(attempt)
    return _in_job(here, place.job) if place else here


def _in_job(place: Whereabouts, job: PilotJob) -> Whereabouts:
    pilot, heard = job.record(job.pilot), disk.read_json(job.heard) or {}
    id_ = str(pilot.get("cluster_id") or heard.get("id") or "")
    if pilot:
        return place._replace(job=id_, node=place.node or str(pilot.get("process", {}).get("host", "")))
    why = str(heard.get("why", "")) if heard.get("phase") == "queued" else ""
    return place._replace(job=id_, is_queued=True, queued_s=_age_s(job.request), why=why)


def _age_s(path: Path) -> float | None:
    """-> since a file was written, by the clocks of machines: for a reader."""
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return None


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
    own = [one for one in places if (one.profile, one.kind) == (profile, kind)]
    queued = [one for one in own if one.is_queued]
    whys = Counter(one.why for one in queued if one.why)
    return ProfileCount(profile, kind, len(own) - len(queued), len(queued), whys.most_common(1)[0][0] if whys else "")
