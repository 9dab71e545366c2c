"""A stage: what it is (kind, settings, inputs) and the key that follows; where it runs is said elsewhere."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ablate.core.values import Frozen, Json, digest, identity


@dataclass(frozen=True, eq=False)
class Stage:
    """One piece of work. Two stages with equal keys are the same work.

    Raises TypeError, when the key is asked for, if a setting has no stable meaning.
    """

    kind: str
    version: int
    """Of the kind: raised when the same settings would give another result."""
    settings: Frozen
    inputs: Mapping[str, "Stage"] = field(default_factory=dict)
    aids: Mapping[str, "Stage"] = field(default_factory=dict)
    """Stages that make this one cheaper and its result no other: in no key. It waits for their end, good or bad."""
    content: str | None = None
    """Digest of what the stage made, where its kind is named by content and the result is there."""
    is_provisional: bool = False
    """A content-named input is not made yet, so the key will change once it is; such a stage is never started."""

    @cached_property
    def payload(self) -> dict[str, Json]:
        return {
            "kind": self.kind,
            "version": self.version,
            "settings": identity(self.settings),
            "inputs": {name: stage.identity for name, stage in self.inputs.items()},
        }

    @cached_property
    def key(self) -> str:
        """sha256 of the canonical JSON of the payload."""
        return digest(self.payload)

    @property
    def key12(self) -> str:
        return self.key[:12]

    @property
    def folder(self) -> str:
        """Name of the stage's folder under runs/stages."""
        return f"{self.kind}-{self.key12}"

    @property
    def identity(self) -> str:
        """What stands for this stage in the key of one that uses it: its content where known, else its key."""
        return self.content or self.key

    def walk(self) -> Iterator["Stage"]:
        """Every stage this one needs or is aided by, each after its own, itself last; a shared one may come twice."""
        for stage in (*self.inputs.values(), *self.aids.values()):
            yield from stage.walk()
        yield self
