"""What a profile of kind slurm may say: which jobs, on what nodes, and how the cluster is to be treated."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ablate.core.errors import AblateError
from ablate.core.values import Frozen, Int, Num
from ablate.execution.pilots.options import PilotOptions
from ablate.execution.slurm import units

_OPTIONS_OF_CARDS = ("gpus", "gpus-per-node", "gpus-per-task")
"""Of sbatch: each says as much of a job of one task. Possible: 4, a100:4."""
_WORD = re.compile(r"[^\s\"'\\`$;|<>]+")
"""What stands in a line #SBATCH without a quotation mark."""
_OPTION = re.compile(r"[a-z][a-z0-9-]+")
_GRES = re.compile(r"[\w.-]+(:[\w.+-]+)*(,[\w.-]+(:[\w.+-]+)*)*")

OURS = frozenset({
    "array", "chdir", "clusters", "comment", "error", "export", "export-file", "input", "job-name", "nodes",
    "no-requeue", "ntasks", "open-mode", "output", "parsable", "quiet", "requeue", "signal", "test-only", "wait",
    "wrap",
})  # fmt: skip
"""Options of sbatch without which jobs are not found, begun anew, or warned before their time is over."""
OF_A_KEY = {
    "cpus-per-task": "cpus",
    "gres": "gres",
    "mem": "memory",
    "nice": "nice",
    "partition": "partition",
    "time": "time",
}
"""Those that a profile says by a key of its own."""


def _word(given: Any) -> Any:
    if isinstance(given, str) and not _WORD.fullmatch(given):
        raise ValueError(f"{given!r} holds a space or a sign of the shell, which no name of Slurm's has")
    return given


def _with_reader(read: Any) -> BeforeValidator:
    def validated(given: Any) -> Any:
        try:
            return given if given is None else read(given)
        except AblateError as error:
            raise ValueError(str(error)) from error

    return BeforeValidator(validated)


Name: TypeAlias = Annotated[str, BeforeValidator(_word), Field(min_length=1, max_length=200)]
Seconds: TypeAlias = Annotated[Num, _with_reader(units.seconds)]
Extra: TypeAlias = bool | int | str | None


class DriverOptions(Frozen):
    """The small job, without a card, that a detached driver is (`run --detach`)."""

    partition: Name | None = None
    """The profile's own unless said: better one without cards."""
    qos: Name | None = None
    time: Annotated[Seconds, Field(ge=120)] | None = None
    """After so long it has itself queued again; the jobs of stages go on meanwhile."""
    cpus: Annotated[Int, Field(ge=1)] = 1
    memory: Annotated[str, _with_reader(units.slurms_size)] = "2G"


class SlurmOptions(PilotOptions):
    """One sort of jobs. What is not said is left to the cluster's own defaults."""

    partition: Name | None = None
    """One, or several with commas."""
    account: Name | None = None
    """Whom the jobs are charged to."""
    qos: Name | None = None
    """Quality of service: a class of jobs with a priority and limits of its own."""
    time: Annotated[Seconds, Field(ge=60)] | None = None
    """Of a job: 8h, 1-12:00:00. The shorter, the sooner it fits into a gap; stages go on in the next job."""
    gres: str | None = None
    """What a job holds beside processors, one card most of the time: gpu:1, gpu:a100:1; by it `cards` is known."""
    cpus: Annotated[Int, Field(ge=1)] | None = None
    """Of a job, for the threads of its one stage."""
    memory: Annotated[str, _with_reader(units.slurms_size)] | None = None
    """Of the machine, for a job: 64G."""
    constraint: str | None = None
    """Features that a node must have: a100&nvlink."""
    nice: Annotated[Int, Field(ge=0)] = 0
    """How far the jobs stand back behind others in the queue."""
    setup: tuple[str, ...] = ()
    """Lines of bash before a job begins: module load cuda. One that fails ends the job."""
    extra: dict[str, Extra] = Field(default_factory=dict)
    """Further options of sbatch by their long names, without dashes: {reservation: course, exclusive: true}."""
    signal_lead_s: Annotated[Seconds, Field(ge=1, le=65535)] = 120.0
    """Before its time is over a job is told to save what it is at, by USR2."""
    command_s: Annotated[Seconds, Field(gt=0)] = 60.0
    """For one of Slurm's commands to answer."""
    driver: DriverOptions = DriverOptions()
    """Of `run --detach`."""

    @model_validator(mode="before")
    @classmethod
    def _device_and_threads(cls, given: Any) -> Any:
        """Say of every job what stages want to know: whether it has a card, or several, how many threads, how long."""
        if not isinstance(given, dict):
            return given
        asked = f"{given.get('gres', '')} {' '.join(map(str, given.get('extra') or {}))}"
        derived: dict[str, Any] = {"device": "cuda" if "gpu" in asked else "cpu", "cards": _num_cards(given) or 1}
        if isinstance(given.get("cpus"), int):
            derived["threads"] = given["cpus"]
        if given.get("time") is not None and "time_s" not in given:
            derived["time_s"] = _seconds_or_none(given["time"])
        return derived | given

    @field_validator("gres")
    @classmethod
    def _is_gres(cls, given: str | None) -> str | None:
        if given is not None and not _GRES.fullmatch(given):
            raise ValueError(f"{given!r} is no list of resources. Possible: gpu:1, gpu:a100:1, gpu:1,tmpdisk:100")
        return given

    @field_validator("constraint")
    @classmethod
    def _is_constraint(cls, given: str | None) -> str | None:
        if given is not None and not re.fullmatch(r"[\w.&|()\[\]*!,:-]+", given):
            raise ValueError(f"{given!r} is no constraint. Possible: a100, a100&nvlink, a100|h100")
        return given

    @field_validator("extra")
    @classmethod
    def _are_further(cls, given: dict[str, Extra]) -> dict[str, Extra]:
        for name, value in given.items():
            _require_further(name)
            if isinstance(value, str) and re.search(r"[\n\r\"\\]", value):
                raise ValueError(f"{name}: a value in one line, without quotation marks and backslashes")
        return given

    @model_validator(mode="after")
    def _has_its_cards(self) -> "SlurmOptions":
        held = _num_cards({"gres": self.gres, "extra": self.extra})
        if held is not None and self.cards > held:
            raise ValueError(f"cards: {self.cards}, but a job is asked for with {held} (gres, or gpus in extra)")
        return self

    @model_validator(mode="after")
    def _leaves_time(self) -> "SlurmOptions":
        if self.time is not None and self.time <= self.signal_lead_s:
            raise ValueError(
                f"time is {self.time:g} s, and {self.signal_lead_s:g} s before its end (signal_lead_s) a job is told to"
                " leave: a longer time, or a shorter lead"
            )
        return self


def _require_further(name: str) -> None:
    if not _OPTION.fullmatch(name):
        raise ValueError(f"{name!r} is no long option of sbatch: without dashes, as in {{reservation: course}}")
    if name in OF_A_KEY:
        raise ValueError(f"{name} is said by the profile's own key {OF_A_KEY[name]!r}")
    if name in OURS:
        raise ValueError(f"{name} is ablate's own: by it jobs are found, begun anew, or told to save in time")


def _num_cards(given: Mapping[str, Any]) -> int | None:
    """-> cards of a job, by `gres: gpu:a100:4` or one of sbatch's own options; None where they say nothing of it."""
    further = given.get("extra")
    extra = further if isinstance(further, dict) else {}
    lists = [given.get("gres"), *(f"gpu:{extra[name]}" for name in _OPTIONS_OF_CARDS if name in extra)]
    nums = [sum(map(_number, filter(_is_of_cards, str(words or "").split(",")))) for words in lists]
    return max(nums) or None


def _is_of_cards(resource: str) -> bool:
    return resource.split(":")[0] == "gpu"


def _number(resource: str) -> int:
    """-> 4 of gpu:a100:4; 1 where none is said."""
    last = resource.rpartition(":")[2]
    return int(last) if last.isdecimal() else 1


def _seconds_or_none(given: Any) -> float | None:
    try:
        return units.seconds(given)
    except AblateError:
        return None  # told of `time` itself
