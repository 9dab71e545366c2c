"""How long the rest of a plan will take, here, on so many cards or by profiles, and what no place there can hold."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from ablate.core.errors import AblateError, grouped_by_text
from ablate.core.text import duration
from ablate.execution.card_needs import with_needs
from ablate.execution.executors.base import LOCAL
from ablate.execution.executors.machine import slots as slots_here
from ablate.execution.fleet import fleet_of
from ablate.execution.job_forecast import ProfileForecast, profile_forecasts
from ablate.execution.profile_cards import slots_with_cards
from ablate.execution.profiles import Profile
from ablate.execution.scheduler_tasks import misfit, task_of
from ablate.execution.simulator import Simulated, simulate
from ablate.execution.status import State
from ablate.machine.slot_allocator import SlotAllocator
from ablate.machine.slots import Placing, Slot, Work
from ablate.planning.card_verdicts import SHARE, Verdict, verdict
from ablate.planning.cost_model import USUAL, CostModel, Device, device_of, devices_of
from ablate.planning.plan import Plan
from ablate.store.kind import KINDS
from ablate.store.stage import Stage


class Forecast(NamedTuple):
    """For one number of cards, or of places on a CPU."""

    places: int
    seconds: float
    bound_s: float
    """No schedule of these costs is shorter."""
    busy: tuple[float, ...]
    """Share of that time in which each place has a stage."""


@dataclass(frozen=True)
class Outlook:
    """What is left of a plan, and what it is to run on."""

    plan: Plan
    state_of: Mapping[str, State]
    slots: Sequence[Slot]
    num_cards: tuple[int, ...] | None = None
    """Asked about; what is here unless said."""
    profiles: tuple[Profile, ...] = ()
    """Whose slots these are; none: those of this machine."""

    @property
    def device(self) -> Device:
        return USUAL if self._is_elsewhere else device_of(self.slots)

    @property
    def _is_elsewhere(self) -> bool:
        """Cards are asked about where there is none."""
        return not self.profiles and self.num_cards is not None and not any(slot.gpu for slot in self.slots)

    @cached_property
    def costs(self) -> CostModel:
        return CostModel(self.plan, self.device, devices_of(self.slots) if self.profiles else ())

    @property
    def left(self) -> list[Stage]:
        return [stage for stage in self.plan.stages if not self.state_of[stage.key].is_over]

    @cached_property
    def is_foreseen(self) -> bool:
        """Whether it is known what each training and evaluation asks for: not before models and rows are here."""
        return all(self.costs(stage).flops is not None for stage in self.left if not KINDS[stage.kind].is_light)

    @cached_property
    def forecasts(self) -> tuple[Forecast, ...]:
        """One for each number of places; none before models and rows are here.

        A card is one place: what sharing one gains is not foreseen.
        """
        if not self.is_foreseen:
            return ()
        return tuple(map(self._forecast, self.num_cards or (len(self._places),)))

    def _forecast(self, num: int) -> Forecast:
        played = self._played(num)
        return Forecast(num, played.makespan_s, played.bound_s, tuple(played.busy.values()))

    @cached_property
    def by_profile(self) -> tuple[ProfileForecast, ...]:
        """What each profile does of it, on all cards that it may have at once, or the most that are asked about."""
        if not self.profiles or not self.forecasts:
            return ()
        num = max(self.num_cards or (len(self._places),))
        return profile_forecasts(self.profiles, self._cards(num), self._played(num))

    def _played(self, num: int) -> Simulated:
        if self.profiles:
            tasks = [task_of(stage, self.costs.planned_s, self.costs.memory) for stage in self.left]
            return simulate(tasks, self._slots_with(self._cards(num)), timing=self.costs.timing)
        place = self._place_here
        heavy = [replace(place, name=f"place {number}") for number in range(num)]
        tasks = [task_of(stage, self.costs.seconds, self.costs.memory) for stage in self.left]
        return simulate(tasks, self._slots_with(heavy))

    @property
    def _place_here(self) -> Slot:
        """-> one of this machine's as the costs have it, which are of such a device."""
        place = Slot("place", frozenset({"heavy"}), can_join=True)
        if self._is_elsewhere:
            return replace(place, device="cuda")
        here = self._places[0]
        on_card = replace(place, device="cuda", memory_bytes=here.memory_bytes, can_join=here.can_join)
        return on_card if here.is_card else place

    def _cards(self, num: int) -> list[Slot]:
        """-> places of the profiles; of one profile alone there may be as many as are asked about."""
        heavy, whole = frozenset[Work]({"heavy"}), [replace(slot, num_shares=1) for slot in self._places]
        named = [replace(slot, takes=heavy) for slot in whole]
        more = [replace(named[0], name=f"card {number}") for number in range(len(named), num)]
        return [*named[:num], *more]

    def _slots_with(self, heavy: Sequence[Slot]) -> list[Slot]:
        beside = Slot("beside", frozenset({"online", "light"}))
        return [*heavy, *(replace(beside, name=f"beside {number}") for number in range(4))]

    @property
    def _places(self) -> list[Slot]:
        return [slot for slot in self.slots if "heavy" in slot.takes]

    def __str__(self) -> str:
        """On 1, 2, 4 cards: 41 h, 21 h, 11 h; and what no schedule can beat. Empty where nothing is foreseen."""
        if not self.forecasts or not self.left:
            return ""
        nums, times = (", ".join(words) for words in zip(*map(_words, self.forecasts), strict=True))
        bounds = ", ".join(duration(forecast.bound_s) for forecast in self.forecasts)
        queues = " without queues" if any(profile.kind != LOCAL for profile in self.profiles) else ""
        return f"on {nums} {self._what()}: {times}{queues} (no schedule takes less than {bounds})"

    @property
    def _has_cards(self) -> bool:
        return self._is_elsewhere or any(slot.is_card for slot in self._places)

    def _what(self) -> str:
        plural = "" if [forecast.places for forecast in self.forecasts] == [1] else "s"
        if self.profiles:
            return self._what_of_profiles(plural)
        if self.num_cards is None and not any(slot.gpu for slot in self.slots):
            return f"stage{plural} at once here"
        return f"card{plural} of {self.device.flops_per_s / 1e12:.0f} TFLOP/s"

    def _what_of_profiles(self, plural: str) -> str:
        names = " and ".join(profile.name for profile in self.profiles)
        are_cards = all(slot.is_card for slot in self._places)
        if are_cards and any(slot.num_gpus > 1 for slot in self._places):
            return f"job{plural} of {names}"
        return f"card{plural} of {names}" if are_cards else f"place{plural} of {names}"

    def notes(self) -> Iterator[str]:
        """What comes to each profile, and what its cards are too small for, or may be."""
        if self.profiles and self.left and not self.forecasts:
            yield "card-hours, price and jobs are told once models and rows are here, too"
        labels = {stage.key: self.plan.label(stage) for stage in self.left}
        for forecast in self.by_profile:
            yield from forecast.lines(labels)
        for profile in self.profiles if self.forecasts else ():
            yield from self._memory_notes(profile, labels)
        if not self.profiles:
            yield from self._fit_notes(labels)
        yield from self._notes_of_several_cards(labels)

    def _notes_of_several_cards(self, labels: Mapping[str, str]) -> Iterator[str]:
        """Which stages have several, and that the study gives one more than it can have here."""
        num = max(self.num_cards or (len(self._places),))
        starts = self._played(num).starts if self.forecasts else ()
        several = [(start.key, start.slot.num_places) for _, start in starts if start.slot.num_places > 1]
        most = sum(slot.num_gpus for slot in self._cards(num)) if self.profiles else num
        what = "cards" if self._has_cards else "places"
        pairs = ((labels[key], f"with {num} of {most} {what} each, as foreseen") for key, num in several)
        yield from (f"{words}: {names}" for names, words in grouped_by_text(pairs))
        by_stage = (KINDS[stage.kind].cards(stage.settings) for stage in self.left)
        asked = max((cards for cards in by_stage if cards != "auto"), default=1)
        cards = [slot for slot in self._places if slot.is_card]
        had = max((self._num_joint(slot, cards) for slot in cards), default=asked)
        if asked > had:
            here = "one card" if had == 1 else f"{had} cards"
            yield f"cards: {asked} is more than there is: a stage has {here} here"

    def _num_joint(self, slot: Slot, cards: Sequence[Slot]) -> int:
        """-> cards that a stage there can have: those of its machine, of a cluster's job what its profile says."""
        joint = [other for other in cards if other.can_join and other.profile == slot.profile]
        return len(joint) if slot.can_join else slot.num_cards("auto")

    def _fit_notes(self, labels: Mapping[str, str]) -> Iterator[str]:
        """What gives way by itself where a stage is more than a card here holds, and what does not fit."""
        cards = [slot for slot in self._places if slot.is_card and slot.memory_bytes]
        fits = ((stage, self._fit(stage, cards)) for stage in (self.left if cards else ()))
        pairs = ((labels[stage.key], self._fit_note(stage, fit, cards)) for stage, fit in fits if fit)
        yield from (f"{names}: {words}" for names, words in grouped_by_text(pairs))

    def _fit(self, stage: Stage, cards: Sequence[Slot]) -> Verdict | None:
        """-> how a stage is to fit whose models are more than the largest of some cards; None where they are not."""
        most = max(slot.memory_bytes or 0 for slot in cards)
        there = max(self._num_joint(slot, cards) for slot in cards if slot.memory_bytes == most)
        held, asked = self.costs(stage).held, KINDS[stage.kind].cards(stage.settings)
        if held is None or not held.ways or held.estimate <= SHARE * most:
            return None
        return verdict(held, there if asked == "auto" else min(asked, there), most)

    def _fit_note(self, stage: Stage, fits: Verdict, cards: Sequence[Slot]) -> str:
        most, need = max(slot.memory_bytes or 0 for slot in cards), self.costs.memory(stage)[0] or 0
        return f"about {need / 1e9:.1f} GB of {most / 1e9:.0f}; {_fit_words(fits)}"

    def _memory_notes(self, profile: Profile, labels: Mapping[str, str]) -> Iterator[str]:
        cards = [slot for slot in self._places if slot.profile == profile.name and slot.is_card]
        if not cards:
            return
        most = max((slot.memory_bytes or 0 for slot in cards), default=0)
        if not most:
            yield f"{profile.name}: its profile says no `memory_bytes` of a card: what is too large is not known"
            return
        notes = ((labels[stage.key], self._memory_note(stage, cards, most)) for stage in self.left)
        for names, words in grouped_by_text((label, note) for label, note in notes if note):
            yield f"{profile.name}: {names}: {words}"

    def _memory_note(self, stage: Stage, cards: Sequence[Slot], most: int) -> str | None:
        """-> that a stage is too large for the largest of some cards, or may be, or how it fits all the same."""
        task, fits = task_of(stage, self.costs.planned_s, self.costs.memory), self._fit(stage, cards)
        if fits and (fits.is_fit or task.least_bytes <= most):
            return self._fit_note(stage, fits, cards)
        if task.work != "heavy" or max(task.least_bytes, task.memory_bytes or 0) <= most:
            return None
        if task.least_bytes > most:
            need = f"its weights alone take {task.least_bytes / 1e9:.1f} GB"
            return f"does not fit on a card of {most / 1e9:.0f} GB: {need}"
        need = f"about {(task.memory_bytes or 0) / 1e9:.1f} GB are thought to be needed"
        return f"may not fit on a card of {most / 1e9:.0f} GB: {need}"

    def warnings(self) -> Iterator[str]:
        """What is to be done and no place here can hold."""
        places, left = SlotAllocator(self._places), () if self._is_elsewhere else self.left
        tasks = [task_of(stage, self.costs.seconds, self.costs.memory) for stage in left]
        for stage, task in zip(left, with_needs(tasks, self._places), strict=True):
            if task.work == "heavy" and not places.fitting(task.demand):
                yield f"{self.plan.label(stage)}: {misfit(task)}; `run` fails it and goes on with the rest"


def _fit_words(fits: Verdict) -> str:
    if fits.is_fit:
        return f"it fits: {fits.how}, {fits.card_bytes / 1e9:.1f} GB a card"
    return f"it may not fit: {fits.how}"


def _words(forecast: Forecast) -> tuple[str, str]:
    return str(forecast.places), duration(forecast.seconds)


def outlook(
    plan: Plan,
    state_of: Mapping[str, State],
    num_cards: tuple[int, ...] | None = None,
    profiles: tuple[Profile, ...] = (),
) -> Outlook:
    """-> what is left of a plan: on this machine, by profiles, or on so many cards (of a usual speed if none is here).

    Raises AblateError for several profiles and a number of cards: whose they are is not clear.
    """
    if not profiles:
        return Outlook(plan, state_of, slots_here(Placing()), num_cards)
    if num_cards and len(profiles) > 1:
        names = ",".join(profile.name for profile in profiles)
        raise AblateError(f"--gpus asks about cards of one sort, and --executor {names} has several: name one of them")
    with contextlib.closing(fleet_of(profiles, Placing())) as fleet:
        return Outlook(plan, state_of, slots_with_cards(fleet.slots(), plan), num_cards, profiles)
