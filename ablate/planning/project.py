"""One study under one root: opened from its file or from the record of its last run, pinned and planned."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ablate.core.errors import AblateError, StudyError
from ablate.core.hub import Repo
from ablate.core.local_files import local_digest
from ablate.core.package import located
from ablate.core.values import Json
from ablate.planning import caching_words, name_owner, study_changes
from ablate.planning.builder import make_plan
from ablate.planning.cost_model import Device
from ablate.planning.disk_choice import with_speeds
from ablate.planning.plan import Cell, Origin, Plan
from ablate.planning.study_changes import LastRun
from ablate.stages.rows import RowsSettings
from ablate.store import study_records
from ablate.store.disk_speed import Speeds
from ablate.store.hub_lock import Pins, pin
from ablate.store.kind import KINDS
from ablate.store.sizes import num_rows
from ablate.store.store import Store
from ablate.study.cells import Row, rows
from ablate.study.load import load
from ablate.study.rehearsal import rehearsal_name, rehearse
from ablate.study.schema import Study
from ablate.study.sources import local_sources, repositories


@dataclass(frozen=True)
class Project:
    """What every verb that speaks of a study works on."""

    study: Study
    store: Store
    source: Path
    """The study file."""
    overrides: tuple[str, ...] = ()
    """As given with --set."""
    doubt: str | None = None
    """Why this may not be the study that is meant: its file is wrong now, or was run otherwise."""

    variant: Mapping[str, Any] | None = None
    """The record of the run that is meant, where that was not the last one."""

    @property
    def lock(self) -> Path:
        """Where the revisions are pinned: beside the study, to be committed with it."""
        return self.source.with_suffix(".lock.yaml")

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Of all tables, before seeds."""
        return rows(self.study)

    def pins(self, *, is_online: bool) -> Pins:
        """Revisions of every repository, and digests of what is local.

        To run (online), the lock counts, the hub is asked for what it lacks, and local files are digested now. To speak
        of a run, what the last one used comes first.
        """
        if not is_online:
            pins = self.locked_pins()
            return pins._replace(
                revisions={**pins.revisions, **self._pinned_last()},
                bases={**pins.bases, **self._bases_last()},
                digests=dict(self._record.get("digests", {})),
                contents=dict(self._record.get("contents", {})),
                num_rows=dict(self._record.get("num_rows", {})),
                speeds=self._speeds,
            )
        digests = {path: local_digest(Path(path)) for path in local_sources(self.rows)}
        return pin(repositories(self.rows), self.lock)._replace(digests=digests, speeds=self._speeds)

    def locked_pins(self) -> Pins:
        """What the lock file alone says."""
        return pin(repositories(self.rows), self.lock, is_online=False)

    def _pinned_last(self) -> dict[Repo, str]:
        return {Repo(*repo): sha for *repo, sha in self._record.get("pins", [])}

    def _pins_with_last(self) -> Pins:
        """Asked now; of what is at the commit of the last run, an adapter's base is the one of then."""
        last, bases, named = self._pinned_last(), self._bases_last(), repositories(self.rows)
        pins = pin([*named, *(bases[repo] for repo in named if repo in bases)], self.lock, instead=last)
        known = {repo: base for repo, base in bases.items() if pins.revisions.get(repo) == last.get(repo)}
        return pins._replace(bases={**known, **pins.bases}, speeds=self._speeds)

    @property
    def _speeds(self) -> Speeds | None:
        """Those of the first run, which count for all later ones: what is chosen by them changes last digits."""
        known: dict[str, Any] | None = self._record.get("speeds")
        return Speeds(**known | {"begun": tuple(known.get("begun", ()))}) if known else None

    def _bases_last(self) -> dict[Repo, Repo]:
        return {Repo(*names[:3]): Repo(*names[3:]) for names in self._record.get("bases", [])}

    @property
    def _record(self) -> Mapping[str, Any]:
        return self.variant or self.store.study_record(self.study.name) or {}

    def _contents(self, plan: Plan) -> dict[str, Json]:
        """Of rows that are damaged or gone, what they held last."""
        last: dict[str, str] = self._record.get("contents", {})
        named = [stage for stage in plan.stages if KINDS[stage.kind].is_named_by_content]
        contents = {stage.key: stage.content or last.get(stage.key) for stage in named}
        return {key: content for key, content in contents.items() if content}

    def _num_rows(self, plan: Plan) -> dict[str, Json]:
        """Likewise how many they were."""
        last: dict[str, int] = self._record.get("num_rows", {})
        numbers = {
            stage.key: num_rows(self.store, stage, last)
            for stage in plan.stages
            if isinstance(stage.settings, RowsSettings)
        }
        return {key: number for key, number in numbers.items() if number is not None}

    def plan(self, *, is_online: bool = True) -> Plan:
        """What `run` would do now; offline, what the last run did.

        Where the hub has no answer for what the lock lacks, what the last run used is shown.
        """
        pins = self._pins_with_last() if is_online else self.pins(is_online=False)
        return self.plan_with(pins)

    def plan_weighed(self, device_of: Callable[[Plan], Device]) -> Plan:
        """-> what `run` would do now on such a device, the disk measured where large caches hang on it."""
        pins = self._pins_with_last()
        plan = self.plan_with(pins)
        try:
            weighed = with_speeds(pins, plan, lambda: device_of(plan))
        except OSError as error:  # a root that may only be read, or whose disk is full
            return replace(plan, unweighed=caching_words.not_measured(self.store.root, error))
        return plan if weighed is pins else self.plan_with(weighed)

    def plan_with(self, pins: Pins) -> Plan:
        """-> the plan of what is pinned so."""
        plan = make_plan(self.study, self.rows, pins, self.store)
        return replace(plan, origin=Origin(self.source, self.overrides))

    @cached_property
    def text(self) -> str | None:
        """A digest of what the study's file says, as it was when it was first asked for."""
        return name_owner.text_of(self.source)

    def require_own_name(self) -> None:
        """Raises NameTakenError where another file was run under the study's name."""
        name_owner.require_own_name(self.store, self.study.name, self.source, self.text)

    @property
    def last_run(self) -> LastRun | None:
        """How it was run last; None where it was not, or nobody can tell."""
        record = self.store.study_record(self.study.name)
        if not record:
            return None
        try:
            study = Study.model_validate(_located(record["study"]))
        except ValueError:
            study = None
        return LastRun(study, tuple(record["overrides"]))

    @property
    def is_recorded(self) -> bool:
        """Whether a run of it is remembered."""
        return self.store.study_record(self.study.name) is not None

    def changes(self) -> list[str]:
        """-> in what this is not what was run last."""
        record, last = self._record, self.last_run
        if last is None:
            return []
        known = name_owner.known_files(self.store, record)
        moved = [] if self.source in known else [f"last run from {known[-1]}, now from {self.source}"]
        changed = study_changes.changes(last, self.study, self.overrides)
        return [*moved, *([changed] if changed else []), *self._given_up()]

    def _given_up(self) -> list[str]:
        most = study_records.MAX_VARIANTS
        if len(self.store.study_variants(self.study.name)) < most:
            return []
        return [f"it was run in more than {most} ways: gc keeps no more what the oldest of them alone need"]

    def record(self, pins: Pins, plan: Plan, *, is_take_over: bool = False) -> None:
        """Keeps the study as it is run, overrides, revisions and what its rows held.

        With `is_take_over` its name is of this file alone from now on.
        """
        files = name_owner.files_from_now(self.store, self.study.name, self.source, is_take_over=is_take_over)
        self.store.record_study(
            self.study.name,
            {
                "study": self.study.model_dump(mode="json"),
                "source": str(self.source),
                "overrides": list(self.overrides),
                "pins": [[*repo, sha] for repo, sha in pins.revisions.items()],
                "bases": [[*repo, *base] for repo, base in pins.bases.items()],
                "digests": dict(pins.digests),
                "contents": self._contents(plan),
                "num_rows": self._num_rows(plan),
                "speeds": pins.speeds._asdict() if pins.speeds else None,
                "text": self.text,
                "files": [*files],
                "root": str(self.store.root),
            },
        )


def open_study(path: Path, root: Path, overrides: Sequence[str] = (), *, is_rehearsal: bool = False) -> Project:
    """A study file, with overrides -> its project. Raises StudyError with every mistake in it."""
    study = load(path, overrides)
    return Project(rehearse(study) if is_rehearsal else study, Store(root), path.resolve(), tuple(overrides))


def reopen_study(root: Path, name: str | None = None) -> Project:
    """-> the project of a study as it was run, of the one run last without a name. Raises AblateError for none."""
    store = Store(root)
    return _project_of_record(store, store.recorded_study(name), f"study {name or 'run last'}")


def reopen_variant(root: Path, path: Path) -> Project:
    """A record beside a study's last one -> the project of the study as it was run then. Raises AblateError."""
    record = study_records.read(path)
    if record is None:
        raise AblateError(f"{path} is damaged")
    project = _project_of_record(Store(root), record, str(path))
    return replace(project, variant=record)


def _project_of_record(store: Store, record: dict[str, Any], name: str) -> Project:
    try:
        study = Study.model_validate(_located(record["study"]))
    except (KeyError, ValueError) as error:
        raise AblateError(f"the record of {name} is from another version of ablate: {error}") from error
    source = name_owner.where_now(Path(record["source"]), record, store.root)
    return Project(study, store, source, tuple(record["overrides"]))


def _located(value: Any) -> Any:
    """-> the study with the embedded files where they lie now."""
    if isinstance(value, dict):
        return {name: _located(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_located(item) for item in value]
    return str(located(Path(value))) if isinstance(value, str) and value.startswith("/") else value


def project_of(study: Path | None, root: Path, overrides: Sequence[str] = (), *, is_rehearsal: bool = False) -> Project:
    """A study file; the name of a study that was run; or None for the one run last. For verbs that speak of a run.

    A file that is wrong now (a model was moved, a line is half written) stands for what was run under its name.
    """
    if study is None:
        return reopen_study(root)
    recorded = rehearsal_name(study.name) if is_rehearsal else study.name
    if not study.exists() and not study.suffix and Store(root).study_folder(recorded).is_dir():
        return reopen_study(root, recorded)
    try:
        project = open_study(study, root, overrides, is_rehearsal=is_rehearsal)
    except StudyError:
        as_run = _as_run(study, root, tuple(overrides), is_rehearsal=is_rehearsal)
        if as_run is None:
            raise
        return as_run
    project.require_own_name()
    last = project.last_run
    return project if last is None else replace(project, doubt=_other_run(project, last))


def _other_run(project: Project, last: LastRun) -> str | None:
    """-> that a study was run last under other overrides than it is spoken of, and how to speak of that run."""
    if last.overrides == project.overrides:
        return None
    words, name = study_changes.set_words, project.study.name
    now = f"this is {name} {words(project.overrides)}"
    return f"{name} was last run {words(last.overrides)}; {now} (the name alone, without a file, is of the last run)"


def _as_run(path: Path, root: Path, overrides: tuple[str, ...], *, is_rehearsal: bool) -> Project | None:
    for name in (*_name_in(path), path.stem):
        recorded = rehearsal_name(name) if is_rehearsal else name
        if Store(root).study_record(recorded) is None:
            continue
        project = reopen_study(root, recorded)
        if overrides in ((), project.overrides):
            doubt = f"{path} is no valid study now (ablate validate says why): this is {recorded!r} as it was run"
            return replace(project, doubt=doubt)
    return None


def _name_in(path: Path) -> list[str]:
    """-> what the `name:` line of a file says that may not be YAML."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return re.findall(r"""^name:[ \t]*["']?([\w.-]+)""", text, re.MULTILINE)[:1]


def find_cell(name: str, root: Path) -> tuple[Plan, Cell]:
    """[STUDY:]ABLATION/ROW[@SEED] -> the cell, and the plan it belongs to.

    STUDY is the name of a study that was run; the one run last unless said. A single seed can be left out.
    Raises AblateError for a name that fits no cell, or several.
    """
    study, colon, cell_name = name.rpartition(":")
    plan = reopen_study(root, study if colon else None).plan(is_online=False)
    cells = [cell for cell in plan.cells if cell_name in (cell.name, f"{cell.row.ablation}/{cell.row.name}")]
    if len(cells) == 1:
        return plan, cells[0]
    listed = "\n".join(f"  {cell.name}" for cell in (cells or plan.cells))
    problem = "several cells" if cells else "no cell"
    raise AblateError(f"{name!r} names {problem} of study {plan.study.name!r}; it has\n{listed}")
