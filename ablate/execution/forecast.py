"""How long the rest of a plan will take, on what is here or on so many cards, and what nothing here can hold."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from ablate.core.text import duration
from ablate.execution.executors.machine import slots as slots_here
from ablate.execution.scheduler_tasks import misfit, task_of
from ablate.execution.simulator import simulate
from ablate.execution.status import State
from ablate.machine.slots import Placing, Slot
from ablate.planning.cost_model import USUAL, CostModel, Device, device_of
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

    @property
    def device(self) -> Device:
        return USUAL if self._is_elsewhere else device_of(self.slots)

    @property
    def _is_elsewhere(self) -> bool:
        """Cards are asked about where there is none."""
        return self.num_cards is not None and not any(slot.gpu for slot in self.slots)

    @cached_property
    def costs(self) -> CostModel:
        return CostModel(self.plan, self.device)

    @property
    def left(self) -> list[Stage]:
        return [stage for stage in self.plan.stages if not self.state_of[stage.key].is_over]

    @cached_property
    def forecasts(self) -> tuple[Forecast, ...]:
        """One for each number of places; none before models and rows are here.

        A card is one place: what sharing one gains is not foreseen.
        """
        if any(self.costs(stage).flops is None for stage in self.left if not KINDS[stage.kind].is_light):
            return ()
        return tuple(map(self._forecast, self.num_cards or (len(self._places),)))

    def _forecast(self, num: int) -> Forecast:
        heavy = [Slot(f"place {number}", frozenset({"heavy"})) for number in range(num)]
        beside = Slot("beside", frozenset({"online", "light"}))
        slots = [*heavy, *(replace(beside, name=f"beside {number}") for number in range(4))]
        played = simulate([task_of(stage, self.costs.seconds) for stage in self.left], slots)
        return Forecast(num, played.makespan_s, played.bound_s, tuple(played.busy.values()))

    @property
    def _places(self) -> list[Slot]:
        return [slot for slot in self.slots if "heavy" in slot.takes]

    def __str__(self) -> str:
        """On 1, 2, 4 cards: 41 h, 21 h, 11 h; and what no schedule can beat. Empty where nothing is foreseen."""
        if not self.forecasts or not self.left:
            return ""
        nums, times = (", ".join(words) for words in zip(*map(_words, self.forecasts), strict=True))
        bounds = ", ".join(duration(forecast.bound_s) for forecast in self.forecasts)
        return f"on {nums} {self._what()}: {times} (no schedule takes less than {bounds})"

    def _what(self) -> str:
        plural = "" if [forecast.places for forecast in self.forecasts] == [1] else "s"
        if self.num_cards is None and not any(slot.gpu for slot in self.slots):
            return f"stage{plural} at once here"
        return f"card{plural} of {self.device.flops_per_s / 1e12:.0f} TFLOP/s"

    def warnings(self) -> Iterator[str]:
        """What is to be done and no place here can hold."""
        for stage in () if self._is_elsewhere else self.left:
            task = task_of(stage, self.costs.seconds, self.costs.memory)
            if task.work == "heavy" and not any(slot.holds(task.least_bytes) for slot in self._places):
                yield f"{self.plan.label(stage)}: {misfit(task)}; `run` fails it and goes on with the rest"


def _words(forecast: Forecast) -> tuple[str, str]:
    return str(forecast.places), duration(forecast.seconds)


def outlook(plan: Plan, state_of: Mapping[str, State], num_cards: tuple[int, ...] | None = None) -> Outlook:
    """-> what is left of a plan on this machine, or on so many cards like those here (or of a usual speed)."""
    return Outlook(plan, state_of, slots_here(Placing()), num_cards)
