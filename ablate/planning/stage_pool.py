"""The stages of one plan, each made once however many rows need it."""

from collections.abc import Mapping
from dataclasses import replace

from ablate.core.values import Frozen
from ablate.store.hub_lock import Pins
from ablate.store.kind import KINDS
from ablate.store.stage import Stage
from ablate.store.store import Store


class StagePool:
    """Stages by key; what they made already is read from the store, else from `pins`."""

    def __init__(self, store: Store, pins: Pins) -> None:
        self._store = store
        self._pins = pins
        self._stages: dict[str, Stage] = {}

    def __getitem__(self, key: str) -> Stage:
        return self._stages[key]

    def make(self, kind: str, settings: Frozen, inputs: Mapping[str, Stage]) -> Stage:
        is_provisional = any(stage.is_provisional or _is_awaited(stage) for stage in inputs.values())
        stage = Stage(kind, KINDS[kind].version, settings, inputs, is_provisional=is_provisional)
        if stage.key not in self._stages:
            self._stages[stage.key] = replace(stage, content=self._content(stage))
        return self._stages[stage.key]

    def aid(self, stage: Stage, name: str, cache: Stage) -> None:
        """Has a stage wait for kept answers; one that is done needs no aid any more, and nothing is made for it."""
        if stage.is_provisional or not self._store.done(stage):
            known = self._stages[stage.key]
            self._stages[stage.key] = replace(known, aids={**known.aids, name: cache})

    def _content(self, stage: Stage) -> str | None:
        if stage.is_provisional or not KINDS[stage.kind].is_named_by_content:
            return None
        return self._store.content(stage) or self._pins.contents.get(stage.key)


def _is_awaited(stage: Stage) -> bool:
    """Whether what uses a stage is named by what it will have made."""
    return stage.content is None and KINDS[stage.kind].is_named_by_content
