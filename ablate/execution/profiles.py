"""Profiles: where stages may run, under a name of the user's, from executors.yaml; never part of a study or a key."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
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

    def record(self) -> dict[str, Any]:
        """-> what an attempt's request says of it: whom to ask for its worker; nothing of this machine."""
        if self.kind == LOCAL:
            return {}
        return {"executor": self.kind, "profile": {"name": self.name, "options": dict(self.options)}}

    @cached_property
    def address(self) -> str:
        """Equal for profiles that one executor can be asked for."""
        return json.dumps(self.record(), sort_keys=True)


HERE = Profile(LOCAL, LOCAL)


def profile_in(request: Mapping[str, Any]) -> Profile:
    """-> the profile that an attempt's request was made for, whatever executors.yaml says now."""
    kind = request.get("executor", LOCAL)
    if kind == LOCAL:
        return HERE
    given = request.get("profile")
    record = given if isinstance(given, dict) else {}  # of a file that somebody changed, or an earlier version wrote
    return Profile(record.get("name", kind), kind, record.get("options", {}))
