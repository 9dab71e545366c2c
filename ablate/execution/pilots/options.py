"""What a profile may say of any cluster's jobs; Slurm and Ray add what is theirs."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ablate.core.values import Bool, Frozen, Int, Num
from ablate.store.node_copies import DEFAULT_GB


def _price(given: Any) -> Any:
    if not (isinstance(given, str) and re.fullmatch(r"\d+(\.\d+)? \S+", given)):
        raise ValueError(f"{given!r} is no price. Possible: 3.20 USD, a number and its currency")
    return given


class PilotOptions(Frozen):
    """How many jobs, of what sort, and how often the cluster is asked."""

    max_jobs: Annotated[Int, Field(ge=1)] = 8
    """So many at once, waiting or running."""
    time_s: Annotated[Num, Field(gt=0)] | None = None
    """After so long the cluster ends a job; None: nothing is known of such a limit."""
    idle_s: Annotated[Num, Field(ge=0)] = 120.0
    """A job without work leaves after so long, or at once when the run has no more."""
    margin_s: Annotated[Num, Field(ge=0)] = 120.0
    """A job with less time left begins nothing more."""
    look_s: Annotated[Num, Field(ge=0)] = 5.0
    """Between two questions to the cluster: one for all jobs; so it is with submissions."""
    submissions_per_minute: Annotated[Int, Field(ge=1)] = 12
    """Calls, each of as many jobs as there are to send."""
    missing_s: Annotated[Num, Field(ge=0)] = 20.0
    """A job that the cluster does not list for so long, and that gives no sign of life, is gone."""
    cards: Annotated[Int, Field(ge=1)] = 1
    """Of a job: a stage uses as many of them as the study lets it and as make it quicker."""
    device: Literal["cpu", "cuda"] = "cuda"
    """What a job's stages compute on: its card, or its processors."""
    threads: Annotated[Int, Field(ge=1)] = 1
    """Of the processor, for a stage."""
    model: str | None = None
    """Name of the card, for what `plan` thinks of it."""
    memory_bytes: Annotated[Int, Field(gt=0)] | None = None
    """Of the card; None: not known, and a stage that is too large for it fails there."""
    price_per_hour: Annotated[str, BeforeValidator(_price)] | None = None
    """Of a job, with its currency: 3.20 USD; `plan` says what a study costs."""
    network: Bool = False
    """Nodes reach the internet: stages that fetch may run there."""
    fork_server: Bool = True
    """A job imports what stages need once, so that each begins in a second."""
    stage_in: str | None = None
    """Where a node keeps copies of the models that it reads: `local` ($SLURM_TMPDIR, $TMPDIR or /tmp), or a path, whose
    variables are the node's. None: they are read where they were fetched to."""
    stage_in_gb: Annotated[Num, Field(gt=0)] = DEFAULT_GB
    """So much of them at most; what was not read for longest goes first."""

    @model_validator(mode="after")
    def _cards_are_there(self) -> Self:
        if self.cards > 1 and self.device == "cpu":
            raise ValueError(f"cards: {self.cards}, but a job has none (device: cpu)")
        return self

    @field_validator("stage_in")
    @classmethod
    def _place(cls, place: str | None) -> str | None:
        if place is not None and place != "local" and not place.startswith(("/", "$")):
            raise ValueError(
                f"`local` is possible, or a path from / or a variable of the node's ($DISK/a), got {place!r}"
            )
        return place
