"""The studies at hand, those that were run and files that are named, and which stages each of them refers to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ablate.core import plain_files
from ablate.core.errors import AblateError
from ablate.execution import study_lock
from ablate.maintenance.garbage import References
from ablate.planning.builder import make_plan
from ablate.planning.plan import Cell, Plan
from ablate.planning.project import Project, open_study, reopen_study, reopen_variant
from ablate.store.kind import KINDS
from ablate.store.stage import Stage
from ablate.store.store import Store


@dataclass(frozen=True)
class StudyReferences:
    """One study, in each of the ways in which it may be run next: as it was, and as its file says now."""

    name: str
    command: str
    """That runs it again."""
    plans: tuple[Plan, ...]
    """The first one as it was run, or as the named file says."""
    problem: str | None = None
    """Why it cannot be told what it refers to."""
    variant: Path | None = None
    """The record of other overrides, or another file, than it was run with last; whoever deletes it gives those up."""

    @cached_property
    def folders(self) -> frozenset[str]:
        """-> names of its stages' folders."""
        return frozenset(stage.folder for plan in self.plans for stage in plan.stages if not stage.is_provisional)

    def cells(self, folder: str) -> list[str]:
        """-> the cells, as `STUDY:ABLATION/ROW@SEED`, that need a stage."""
        names = [f"{self.name}:{cell.name}" for plan in self.plans[:1] for cell in _needing(plan, folder)]
        return list(dict.fromkeys(names))

    @cached_property
    def doubt(self) -> str | None:
        """-> why some of its stages are not known, or None: their names follow from the content of one that is gone."""
        pairs = ((plan.store, stage) for plan in self.plans for stage in plan.stages)
        lost = next((stage.folder for store, stage in pairs if _is_lost(store, stage)), None)
        return self.problem or (lost and f"{lost} was made and is gone, so what was made of it cannot be told")


def _needing(plan: Plan, folder: str) -> Iterator[Cell]:
    keys = [stage.key for stage in plan.stages if stage.folder == folder]
    return (cell for key in keys for cell in plan.needed_by.get(key, ()))


def _is_lost(store: Store, stage: Stage) -> bool:
    """Whether others name a stage by what it made, and it was made, and that is gone."""
    if stage.content is not None or not KINDS[stage.kind].is_named_by_content:
        return False
    exits = (attempt.exit for attempt in store.attempts(stage.key12))
    return store.folder(stage).exists() or any(record and record["failure"] == "ok" for record in exits)


def studies_at_hand(store: Store, files: Sequence[Path] = ()) -> list[StudyReferences]:
    """-> every study that was run under a root, then those of the files. Raises StudyError for a file that is wrong."""
    names = [name for name in store.study_names() if plain_files.what_is(store.study_folder(name) / "study.json")]
    runs = [(name, variant) for name in names for variant in (None, *store.study_variants(name))]
    return [*(_recorded(store, *run) for run in runs), *(_named(store, path) for path in files)]


def _recorded(store: Store, name: str, variant: Path | None) -> StudyReferences:
    try:
        project = reopen_study(store.root, name) if variant is None else reopen_variant(store.root, variant)
        plans = [project.plan(is_online=False)]
    except AblateError as error:
        return StudyReferences(name, f"ablate run of the file of study {name}", (), str(error), variant)
    return StudyReferences(name, _command(project), (*plans, *_as_it_is_now(project)), None, variant)


def _named(store: Store, path: Path) -> StudyReferences:
    project = open_study(path, store.root)
    return StudyReferences(project.study.name, _command(project), tuple(_plans(project)))


def _as_it_is_now(project: Project) -> Iterator[Plan]:
    """With the overrides of then, and of the last run also without any. A file that is gone or wrong says nothing."""
    every = {project.overrides} if project.variant else {project.overrides, ()}
    for overrides in every if project.source.is_file() else ():
        try:
            is_rehearsal = bool(project.study.rehearsal)
            now = open_study(project.source, project.store.root, overrides, is_rehearsal=is_rehearsal)
            yield from _plans(replace(now, variant=project.variant))
        except AblateError:
            continue


def _plans(project: Project) -> Iterator[Plan]:
    """With the revisions of the last run, and with those of the lock file; local files as they were, and are."""
    last, lock = project.pins(is_online=False), project.locked_pins()
    for pins in (last, lock._replace(contents=last.contents, num_rows=last.num_rows, speeds=last.speeds)):
        yield make_plan(project.study, project.rows, pins, project.store)


def _command(project: Project) -> str:
    source = project.source
    here = source.relative_to(Path.cwd()) if source.is_relative_to(Path.cwd()) else source
    sets = "".join(f" --set {one}" for one in project.overrides)
    return f"ablate run {here}{sets}" + (" --rehearse" if project.study.rehearsal else "")


def needed_by_studies(store: Store, files: Sequence[Path] = ()) -> References:
    """-> what the studies that were run under a root, and those in files, need."""
    studies = studies_at_hand(store, files)
    doubts = [f"study {study.name}: {study.doubt}" for study in studies if study.doubt]
    unrecorded = sorted({*store.study_names()} - {study.name for study in studies})
    doubts += [
        f"study {name} is being run and is not recorded yet" for name in unrecorded if study_lock.driver_of(store, name)
    ]
    variants = {study.variant: study.command for study in studies if study.variant and not study.problem}
    return References(frozenset().union(*(study.folders for study in studies)), tuple(doubts), variants)
