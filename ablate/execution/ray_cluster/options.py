"""What a profile of kind `ray` may say: which cluster, and what each job asks of it."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ablate.core.values import Bool, Num
from ablate.execution.pilots.options import PilotOptions

_UNITS = {"M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _memory(given: Any) -> Any:
    if not (isinstance(given, str) and re.fullmatch(r"[1-9]\d*[MGT]", given)):
        raise ValueError(f"{given!r} is no amount of memory. Possible: 64G, 500M, 1T")
    return given


class RayOptions(PilotOptions):
    """Resources are for Ray to count, as it does for every actor: it measures none of them."""

    address: str = "auto"
    """`auto`: the cluster that the driver's machine is a node of, or that RAY_ADDRESS names; or its head, host:port."""
    namespace: Annotated[str, Field(min_length=1)] = "ablate"
    """In which the actors are named."""
    num_gpus: Annotated[Num, Field(ge=0)] = 1.0
    """Cards of a job, by which `cards` is known; a part of one, 0.5, shares it with others. Unless said: 1, or 0 where
    `device` is cpu."""
    num_cpus: Annotated[Num, Field(ge=0)] = 1.0
    """Cores of a job, as Ray counts them."""
    resources: dict[str, Annotated[Num, Field(gt=0)]] = {}
    """Others by name, such as `accelerator_type:A100: 0.001`, which any node with such a card has."""
    memory: Annotated[str, BeforeValidator(_memory)] | None = None
    """Of the node's memory: 64G."""
    answer_s: Annotated[Num, Field(gt=0)] = 20.0
    """For the cluster to answer a question; the first takes a second or two."""
    autoscaling: Bool = False
    """Nodes may still come: a job that none can meet waits, instead of being refused."""

    @model_validator(mode="before")
    @classmethod
    def _card_by_device(cls, given: Any) -> Any:
        """With or without a card need not be said twice."""
        if not isinstance(given, dict):
            return given
        num_gpus = given.get("num_gpus")
        implied: dict[str, Any] = {"num_gpus": 0} if given.get("device") == "cpu" else {}
        if isinstance(num_gpus, int | float) and num_gpus > 1:
            implied["cards"] = int(num_gpus)
        return implied | ({"device": "cpu"} if num_gpus == 0 else {}) | given

    @model_validator(mode="after")
    def _card_and_device(self) -> "RayOptions":
        if (self.num_gpus > 0) != (self.device == "cuda"):
            raise ValueError(f"device: {self.device} and num_gpus: {self.num_gpus:g} do not go together")
        if self.num_gpus > 1 and self.num_gpus % 1:
            raise ValueError(f"num_gpus: {self.num_gpus:g} is neither a part of one card nor a number of whole ones")
        if self.cards > max(self.num_gpus, 1):
            raise ValueError(f"cards: {self.cards}, but a job is asked for with num_gpus: {self.num_gpus:g}")
        return self

    @field_validator("address")
    @classmethod
    def _address(cls, address: str) -> str:
        if address.startswith("ray://"):
            raise ValueError(
                "Ray's client (ray://) lists no actors, so it cannot tell what became of a job: run `ablate` on a node"
                " of the cluster (as a RayJob on Kubernetes) with `auto` or HOST:PORT"
            )
        if address != "auto" and not re.fullmatch(r"[^\s/:]+:\d+|\[[0-9A-Fa-f:]+\]:\d+", address):
            raise ValueError(f"`auto` or HOST:PORT of the cluster's head is possible, got {address!r}")
        return address

    @property
    def asked(self) -> dict[str, float]:
        """-> what a job asks for, by Ray's names of resources; memory in bytes."""
        memory = int(self.memory[:-1]) * _UNITS[self.memory[-1]] if self.memory else 0
        amounts = {"GPU": self.num_gpus, "CPU": self.num_cpus, "memory": memory, **self.resources}
        return {name: amount for name, amount in amounts.items() if amount}
