"""What the stages of a plan come to on each profile: card-hours, what they cost, how many jobs, and how long each."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ablate.core.text import duration
from ablate.execution.executors.base import LOCAL
from ablate.execution.profile_options import options_model
from ablate.execution.profiles import Profile
from ablate.execution.simulator import Simulated
from ablate.machine.slots import Slot
from ablate.planning.cost_model import device_in


class JobTerms(NamedTuple):
    """What a profile says of one job; an executor of another package may know nothing of it."""

    time_s: float | None = None
    """None: without a limit."""
    idle_s: float = 0.0
    price: str | None = None
    """Of a job and hour: 3.20 USD."""


class LongStage(NamedTuple):
    """A stage that is longer than a job: it goes on in the next by its checkpoint."""

    key: str
    seconds: float
    num_jobs: int


class ProfileForecast(NamedTuple):
    """One profile's part of the work, without queues."""

    profile: str
    kind: str
    card: str | None
    num_cards: int
    """Used at once at most; where there is no card, stages at once."""
    num_stages: int
    card_hours: float
    """With a stage at work; what a job waits for its next one comes on top."""
    price_per_hour: str | None
    price: str | None
    num_jobs: int | None
    """None on this machine, which has none."""
    longest_job_s: float | None
    time_limit_s: float | None
    long_stages: tuple[LongStage, ...]

    def record(self) -> dict[str, Any]:
        """For --json."""
        return self._asdict() | {"long_stages": [stage._asdict() for stage in self.long_stages]}

    def lines(self, labels: Mapping[str, str]) -> Iterator[str]:
        """-> for a reader; `labels`: by key of the stage."""
        unit = "card-hours" if self.card else "hours"
        stages = "1 stage" if self.num_stages == 1 else f"{self.num_stages} stages"
        cost = f", {self.price} at {self.price_per_hour} an hour" if self.price else ""
        jobs = ""
        if self.num_jobs and self.longest_job_s:
            longest = duration(self.longest_job_s)
            jobs = f"; 1 job of {longest}" if self.num_jobs == 1 else f"; {self.num_jobs} jobs of up to {longest}"
        yield f"{self.profile}: {stages}, {self.card_hours:.1f} {unit} of work{cost}{jobs}"
        if self.long_stages and self.time_limit_s:
            yield f"{self.profile}: {self._long_stages_in_words(labels, duration(self.time_limit_s))}"

    def _long_stages_in_words(self, labels: Mapping[str, str], limit: str) -> str:
        key, seconds, num_jobs = max(self.long_stages, key=lambda stage: stage.seconds)
        longest = f"{labels[key]}, {duration(seconds)}: {num_jobs} jobs"
        if len(self.long_stages) == 1:
            return f"1 stage is longer than a job ({limit}) and goes on in the next by checkpoint ({longest})"
        several = f"{len(self.long_stages)} stages are longer than a job ({limit})"
        return f"{several} and go on in the next by checkpoint (the longest {longest})"


class _Span(NamedTuple):
    begin_s: float
    end_s: float
    key: str


def terms_of(profile: Profile) -> JobTerms:
    """-> of the jobs of a profile whose options are valid."""
    model = options_model(profile.kind)
    if model is None:
        return JobTerms()
    options = model.model_validate(dict(profile.options))
    idle_s, price = getattr(options, "idle_s", 0.0), getattr(options, "price_per_hour", None)
    return JobTerms(getattr(options, "time_s", None), idle_s, price)


def profile_forecasts(
    profiles: Sequence[Profile], slots: Sequence[Slot], played: Simulated
) -> tuple[ProfileForecast, ...]:
    """-> of each profile that has slots for heavy stages, from a simulated run without failures."""
    spans: dict[str, list[_Span]] = {slot.name: [] for slot in slots if "heavy" in slot.takes}
    for at, start in played.starts:
        for name in spans.keys() & start.slot.parts:
            spans[name].append(_Span(at, played.ends[start.key], start.key))
    return tuple(_forecast(profile, slots, spans) for profile in profiles)


def _forecast(profile: Profile, slots: Sequence[Slot], spans: Mapping[str, list[_Span]]) -> ProfileForecast:
    own = [slot for slot in slots if slot.profile == profile.name and slot.name in spans]
    used = [slot for slot in own if spans[slot.name]]
    work = [sorted(spans[slot.name]) for slot in used]
    terms, hours = terms_of(profile), [sum(span.end_s - span.begin_s for span in one) / 3600 for one in work]
    card_hours = sum(hours_of_one * slot.num_gpus for hours_of_one, slot in zip(hours, used, strict=True))
    jobs = [] if profile.kind == LOCAL else [length_s for one in work for length_s in _jobs_s(one, terms)]
    return ProfileForecast(
        profile=profile.name,
        kind=profile.kind,
        card=next((device_in(slot).sort or "unknown" for slot in own if slot.is_card), None),
        num_cards=sum(slot.num_gpus for slot in used),
        num_stages=len({span.key for span in itertools.chain(*work)}),
        card_hours=card_hours,
        price_per_hour=terms.price,
        price=_price(terms.price, sum(hours)) if terms.price else None,
        num_jobs=None if profile.kind == LOCAL else len(jobs),
        longest_job_s=max(jobs, default=None),
        time_limit_s=terms.time_s,
        long_stages=tuple(_long_stages(work, terms)),
    )


def _jobs_s(spans: Sequence[_Span], terms: JobTerms) -> Iterator[float]:
    """-> how long each job is that one place needs: one works on until its time is over, or it has idled too long."""
    begin_s, end_s = spans[0][:2]
    for span in spans[1:]:
        if span.begin_s - end_s > terms.idle_s:
            yield from _cut(end_s - begin_s, terms.time_s)
            begin_s = span.begin_s
        end_s = span.end_s
    yield from _cut(end_s - begin_s, terms.time_s)


def _cut(seconds: float, time_s: float | None) -> Iterator[float]:
    while time_s is not None and seconds > time_s:
        yield time_s
        seconds -= time_s
    yield seconds


def _long_stages(work: Sequence[Sequence[_Span]], terms: JobTerms) -> Iterator[LongStage]:
    for begin_s, end_s, key in itertools.chain(*work):
        if terms.time_s is not None and end_s - begin_s > terms.time_s:
            yield LongStage(key, end_s - begin_s, math.ceil((end_s - begin_s) / terms.time_s))


def _price(per_hour: str, hours: float) -> str:
    amount, _, currency = per_hour.partition(" ")
    return f"{float(amount) * hours:,.2f} {currency}"
