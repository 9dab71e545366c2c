"""Profiles: where stages may run, under a name of the user's, from executors.yaml; never part of a study or a key."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ablate.execution.executors.base import LOCAL


@dataclass(frozen=True)
class Profile:
    """One place to run stages."""

    name: str
    kind: str
    """A name in EXECUTORS."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Its other keys, as JSON has them: the executor checks them, and every attempt's request carries them, so that
    any process can ask for its worker without the file."""


HERE = Profile(LOCAL, LOCAL)
