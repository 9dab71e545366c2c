"""Where the stages of one run may be: the executors of its profiles, and this machine for what fetches."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ablate.core.errors import AblateError
from ablate.execution.executors.base import EXECUTORS, LOCAL, Executor
from ablate.execution.executors.local import Local
from ablate.execution.pilots.executor import PilotExecutor
from ablate.execution.pilots.pilot_job import open_jobs
from ablate.execution.profile_cards import card_of
from ablate.execution.profile_options import require_valid
from ablate.execution.profiles import HERE, Profile
from ablate.machine.slots import Placing, Slot, Taken
from ablate.store.attempt import Attempt


@dataclass(frozen=True)
class Place:
    """A profile, and its executor."""

    profile: Profile
    executor: Executor
    is_for_fetches: bool = False
    """Only its slots for stages that need the network."""

    def slots(self) -> list[Slot]:
        """Raises AblateError for a wish of the user's that cannot be met."""
        card = card_of(self.profile.options)
        slots = [self._own(slot, card) for slot in self.executor.slots()]
        return [slot for slot in slots if slot.takes == {"online"}] if self.is_for_fetches else slots

    def _own(self, slot: Slot, card: str | None) -> Slot:
        return replace(slot, profile=self.profile.name, model=slot.model or (card if slot.is_card else None))

    def whereabouts(self) -> str:
        """-> a100 (slurm, up to 200 at once)."""
        if self.profile.kind == LOCAL:
            return "here"
        num_heavy = sum("heavy" in slot.takes for slot in self.slots())
        kind = "" if self.profile.kind == self.profile.name else f"{self.profile.kind}, "
        return f"{self.profile.name} ({kind}up to {num_heavy} at once)"


class Fleet:
    """The executors of one run. Whoever asks for a worker of an attempt that is not this run's asks `Workers`.

    `sees_out`: what the study has on clusters under profiles that the run is without is seen out.
    """

    def __init__(self, places: Sequence[Place], *, sees_out: bool = True) -> None:
        self.places, self._sees_out = tuple(places), sees_out
        self.former: tuple[Place, ...] = ()
        """Profiles of earlier runs of the study, which this run has not, or not so: their jobs are seen out."""

    def slots(self) -> Sequence[Slot]:
        """-> every slot of all. Raises AblateError for a wish of the user's that cannot be met."""
        return [slot for slot, _ in self._placed.values()]

    def whereabouts(self) -> str | None:
        """-> where stages run: "a100 (slurm, up to 200 at once) and here"; None where that is this machine alone."""
        if all(place.profile.kind == LOCAL for place in self.places):
            return None
        where = [place.whereabouts() for place in self.places if not place.is_for_fetches]
        rest = "; what fetches runs here" if any(place.is_for_fetches for place in self.places) else ""
        return f"{' and '.join(where)}{rest}"

    def record(self, slot: Slot) -> dict[str, Any]:
        """-> what the request of an attempt in one of the slots says of its executor."""
        return self._place_of(slot).profile.record()

    def begin(self, jobs: Path) -> None:
        """See `Executor.begin`. What has jobs there under a profile that was edited, renamed or left out since is
        watched to its end; such jobs get no more work, and go.
        """
        for place in self.places:
            place.executor.begin(jobs)
        self.former = tuple(self._former_places(jobs)) if self._sees_out else ()
        for former in self.former:
            former.executor.begin(jobs)

    def _former_places(self, jobs: Path) -> Iterator[Place]:
        pilots = [place.executor for place in self.places if isinstance(place.executor, PilotExecutor)]
        others = [job.profile for job in open_jobs(jobs) if not any(own.owns(job) for own in pilots)]
        for profile in {profile.address: profile for profile in others}.values():
            with contextlib.suppress(Exception):  # of no use here any more: its jobs go once they have idled
                yield place_of(profile, Placing())

    def submit(self, attempt: Attempt, slot: Slot) -> None:
        """See `Executor.submit`."""
        self._place_of(slot).executor.submit(attempt)

    def taken(self, at_work: Sequence[Attempt]) -> Mapping[str, Taken]:
        """See `Executor.taken`."""
        taken = [place.executor.taken(at_work) for place in self.places if not place.is_for_fetches]
        return {name: others for one in taken for name, others in one.items()}

    def look(self, num_waiting: int) -> Sequence[str]:
        """See `Executor.look`."""
        notes = [note for place in self.places for note in place.executor.look(num_waiting)]
        return notes + [note for place in self.former for note in place.executor.look(0)]

    def leave(self) -> None:
        """Before `close`: another driver is to go on, and finds pilots that idle where they are."""
        for place in self.places:
            if isinstance(place.executor, PilotExecutor):
                place.executor.leave()

    def close(self) -> None:
        """See `Executor.close`."""
        with contextlib.ExitStack() as stack:
            for place in (*self.places, *self.former):
                stack.callback(place.executor.close)

    @cached_property
    def _placed(self) -> dict[str, tuple[Slot, Place]]:
        """By name of the slot."""
        placed = [(slot, place) for place in self.places for slot in place.slots()]
        twice = [name for name, times in Counter(slot.name for slot, _ in placed).items() if times > 1]
        if twice:
            names = " and ".join(place.profile.name for slot, place in placed if slot.name == twice[0])
            raise AblateError(f"{names} both have a slot named {twice[0]!r}: run with one of them")
        return {slot.name: (slot, place) for slot, place in placed}

    def _place_of(self, slot: Slot) -> Place:
        return self._placed[slot.parts[0]][1]


def fleet_with(executor: Executor) -> Fleet:
    """-> one executor alone, under its own name."""
    return Fleet([Place(Profile(executor.name, executor.name), executor)])


def fleet_of(profiles: Sequence[Profile], placing: Placing) -> Fleet:
    """-> the executors of profiles, each once, and this machine for what fetches.

    `placing` speaks of this machine. Raises AblateError for what no executor can be made of, StudyError with every
    mistake in a profile's options.
    """
    profiles = tuple({profile.name: profile for profile in profiles}.values())
    here = [profile.name for profile in profiles if profile.kind == LOCAL]
    if len(here) > 1:
        raise AblateError(f"{' and '.join(here)} are both this machine: run with one of them")
    if not here and (placing.gpus or placing.num_jobs):
        raise AblateError(
            f"--gpus and --jobs speak of this machine, and {_names(profiles)} is elsewhere: add `local` to --executor"
        )
    places = [place_of(profile, placing) for profile in profiles]
    return Fleet(places if here else [*places, Place(HERE, Local(Placing(uses_fork_server=False)), True)])


def place_of(profile: Profile, placing: Placing) -> Place:
    """-> a profile with its executor; `placing` speaks of this machine. Raises as `fleet_of` does."""
    require_valid(profile)
    own = placing if profile.kind == LOCAL else Placing(uses_fork_server=placing.uses_fork_server)
    executor = EXECUTORS[profile.kind](replace(own, profile=profile.name, options=profile.options))
    name = getattr(executor, "name", None)
    if name != profile.kind:
        raise AblateError(f"executor {profile.kind!r} calls itself {name!r}: `status` and `stop` would ask another one")
    return Place(profile, executor)


def _names(profiles: Sequence[Profile]) -> str:
    return ", ".join(profile.name for profile in profiles)
