"""One study under one root: opened from its file or from the record of its last run, pinned and planned."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.errors import AblateError
from ablate.hub import Pins, Repo, pin
from ablate.planning import Cell, Plan, make_plan, repositories
from ablate.spec.cells import rehearse
from ablate.spec.load import load
from ablate.spec.schema import Study
from ablate.store import Store


@dataclass(frozen=True)
class Session:
    """What every verb that speaks of a study works on."""

    study: Study
    store: Store
    source: Path
    """The study file."""
    overrides: tuple[str, ...] = ()
    """As given with --set."""

    @property
    def lock(self) -> Path:
        """Where the revisions are pinned: beside the study, to be committed with it."""
        return self.source.with_suffix(".lock.yaml")

    def pins(self, *, is_online: bool) -> Pins:
        """Revisions of every repository; asks the hub only for what the lock lacks, and only when online.

        Offline, what the last run of the study used comes before what the lock says.
        """
        pins = pin(repositories(self.study), self.lock, is_online=is_online)
        return pins if is_online else pins._replace(revisions={**pins.revisions, **self._pinned_last()})

    def _pinned_last(self) -> dict[Repo, str]:
        record = self.store.study_record(self.study.name) or {}
        return {Repo(*repo): sha for *repo, sha in record.get("pins", [])}

    def plan(self, *, is_online: bool = True) -> Plan:
        """The plan under the revisions known; when online, the hub is asked for those that nothing on disk says."""
        pins = self.pins(is_online=False)
        return make_plan(self.study, self.store, self.pins(is_online=True) if is_online and pins.problems else pins)

    def record(self, pins: Pins) -> None:
        """Keeps the study as it is run, overrides and revisions and all."""
        self.store.record_study(
            self.study.name,
            {
                "study": self.study.model_dump(mode="json"),
                "source": str(self.source),
                "overrides": list(self.overrides),
                "pins": [[*repo, sha] for repo, sha in pins.revisions.items()],
            },
        )


def open_study(path: Path, root: Path, overrides: Sequence[str] = (), *, is_rehearsal: bool = False) -> Session:
    """A study file, with overrides -> its session. Raises StudyError with every mistake in it."""
    study = load(path, overrides)
    return Session(rehearse(study) if is_rehearsal else study, Store(root), path.resolve(), tuple(overrides))


def reopen_study(root: Path, name: str | None = None) -> Session:
    """-> the session of a study as it was run, of the one run last without a name. Raises AblateError for none."""
    store = Store(root)
    record: dict[str, Any] = store.recorded_study(name)
    try:
        study = Study.model_validate(record["study"])
    except ValueError as error:
        raise AblateError(
            f"the record of study {name or 'run last'} is from another version of ablate: {error}"
        ) from error
    return Session(study, store, Path(record["source"]), tuple(record["overrides"]))


def session_of(study: Path | None, root: Path, overrides: Sequence[str] = (), *, is_rehearsal: bool = False) -> Session:
    """A study file; the name of a study that was run; or None for the one run last."""
    if study is None:
        return reopen_study(root)
    if not study.exists() and not study.suffix and Store(root).study_folder(study.name).is_dir():
        return reopen_study(root, study.name)
    return open_study(study, root, overrides, is_rehearsal=is_rehearsal)


def find_cell(name: str, root: Path) -> tuple[Plan, Cell]:
    """[STUDY:]ABLATION/ROW[@SEED] -> the cell, and the plan it belongs to.

    STUDY is the name of a study that was run; the one run last unless said. A single seed can be left out.
    Raises AblateError for a name that fits no cell, or several.
    """
    study, colon, cell_name = name.rpartition(":")
    plan = reopen_study(root, study if colon else None).plan(is_online=False)
    found = [cell for cell in plan.cells if cell_name in (cell.name, f"{cell.row.ablation}/{cell.row.name}")]
    if len(found) == 1:
        return plan, found[0]
    names = [cell.name for cell in (found or plan.cells)]
    listed = "\n".join(f"  {name}" for name in names)
    problem = "several cells" if found else "no cell"
    raise AblateError(f"{name!r} names {problem} of study {plan.study.name!r}; it has\n{listed}")
