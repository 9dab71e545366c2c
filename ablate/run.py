"""The library's calls: what the verbs of the command line do. What a call needs is imported when it is called."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

    from ablate.core.doctor_line import Line
    from ablate.execution.detached.detach import Detached, Ended
    from ablate.execution.driver import Summary
    from ablate.execution.study_run import RunOptions
    from ablate.maintenance.garbage import Piece
    from ablate.maintenance.verify import Damage, OnProgress
    from ablate.planning.plan import Plan
    from ablate.planning.project import Project
    from ablate.study.schema import Study


def load(path: str | Path, overrides: Sequence[str] = ()) -> "Study":
    """Reads a study file, edited by overrides such as "train.lr=1e-4". Raises StudyError with every mistake in it."""
    from ablate.study.load import load as load_study

    return load_study(Path(path), overrides)


def plan(path: str | Path, overrides: Sequence[str] = (), *, root: str | Path = ".") -> "Plan":
    """-> the stages that follow from a study file, and what is done of them under `root`."""
    from ablate.planning.project import open_study

    return open_study(Path(path), Path(root), overrides).plan()


def run(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    root: str | Path = ".",
    executor: str | Sequence[str] = (),
    is_rehearsal: bool = False,
    is_take_over: bool = False,
) -> "Summary":
    """Brings a study to its end, or further towards it, and writes its report.

    `executor`: profiles of executors.yaml, "a100,local" or a list; this machine unless given. Raises StudyError for
    mistakes in them, NameTakenError where another file was run under the study's name, unless `is_take_over`.
    """
    from ablate.execution.profile_file import profiles_named
    from ablate.execution.study_run import RunOptions
    from ablate.planning.project import open_study

    project = open_study(Path(path), Path(root), overrides, is_rehearsal=is_rehearsal)
    names = [executor] if isinstance(executor, str) else executor
    profiles = profiles_named(names, Path(path).parent)
    return run_study(project, RunOptions(profiles=profiles, is_take_over=is_take_over))


def run_study(
    project: "Project", options: "RunOptions | None" = None, on_report: Callable[[Path], None] | None = None
) -> "Summary":
    """Runs a study and writes its report, of whose folder `on_report` hears before the last line is printed.

    Raises StudyError when the study turns out wrong once its models are here, HeldError when another run has it,
    NameTakenError when another file was run under its name.
    """
    from ablate.execution.detached.detach import require_none_queued
    from ablate.execution.study_run import run_cells
    from ablate.report.write import write_report

    require_none_queued(project.store, project.study.name)
    run = run_cells(project, options)
    for trouble in run.troubles:
        print(trouble)
    report = write_report(run.plan)
    if on_report:
        on_report(report)
    print(f"{run.cells}; report: {report}")
    return run.summary


def detach_study(
    project: "Project", options: "RunOptions", arguments: Sequence[str], say: Callable[[str], None]
) -> "Detached | Ended":
    """Has `ablate` with these arguments run a study by itself, where the first of the profiles is.

    What needs the network is done here first, where the driver will have none. -> who runs it; or what it printed,
    where it has ended before it drove. Raises as `run_study` does.
    """
    from ablate.execution.detached import detach
    from ablate.execution.executors.base import python
    from ablate.execution.study_run import fetch_inputs

    profile = options.profiles[0]
    if detach.host_of(profile).is_cluster:
        detach.require_none_queued(project.store, project.study.name)
        fetched = fetch_inputs(project, options)
        if fetched.exit_code:
            return detach.Ended("what a driver there needs is not all here: none was started", fetched.exit_code)
    return detach.detach(project.store, project.study.name, profile, [*python("ablate"), *arguments], say)


def write_reports(
    plans: "Sequence[Plan]", formats: Sequence[str] | None = None, style: str | None = None
) -> list[Path]:
    """-> the folders of each study's report and, last, of one of them all; of one study alone that is its own.

    `formats`: of html, md, tex and ipynb; `style`: screen, or paper for figures that papers take too; None: what each
    report was last asked for, at first html and md, for a screen.
    """
    from ablate.report.write import write_report

    together = write_report(*plans, formats=formats, style=style)
    return [*(write_report(plan, formats=formats, style=style) for plan in plans if len(plans) > 1), together]


def write_comparison(here: "Plan", there: "Plan", folder: Path) -> Path:
    """-> the page in a report's folder that holds a study against the same one as it was run in another root."""
    from ablate.report.write import write_comparison
    from ablate.results.collect import collect

    return write_comparison(collect(here), collect(there), folder)


def results(
    path: str | Path | None = None, overrides: Sequence[str] = (), *, root: str | Path = "."
) -> "pandas.DataFrame":
    """-> one line per (ablation, row, seed, task, metric): value, stderr, n, key, state.

    No path: the study run last.
    """
    from ablate.planning.project import project_of
    from ablate.results.collect import collect
    from ablate.results.long_table import frame

    project = project_of(Path(path) if path else None, Path(root), overrides)
    return frame(collect(project.plan(is_online=False)))


def verify(*, root: str | Path = ".", on_progress: "OnProgress | None" = None) -> "list[Damage]":
    """-> everything under a root that is not as it was written.

    `on_progress` hears of bytes read, all bytes, and what is next.
    """
    from ablate.maintenance import verify
    from ablate.store.store import Store

    return verify.verify(verify.parts(Store(Path(root))), on_progress or verify.silent)


def gc(paths: Sequence[str | Path] = (), *, root: str | Path = ".", is_dry: bool = False) -> "list[Piece]":
    """Removes what no study that was run under `root` needs, nor any study file of `paths`. -> what it was."""
    from ablate.maintenance.collection import collect
    from ablate.store.store import Store

    return collect(Store(Path(root)), [Path(path) for path in paths], lambda *_: not is_dry).pieces


def doctor(*, root: str | Path = ".", executor: str | Sequence[str] = (), wait_s: float = 600.0) -> "list[Line]":
    """-> whether this machine is fit to run studies under a root, thing by thing; or the machines of profiles.

    `executor`: as for `run`, of an executors.yaml in the current folder; `wait_s`: for its jobs to begin.
    """
    from ablate.execution.profile_file import profiles_named
    from ablate.maintenance import doctor, executor_doctor

    if not executor:
        return list(doctor.doctor(Path(root)))
    profiles = profiles_named([executor] if isinstance(executor, str) else executor, Path())
    lines = (executor_doctor.doctor(Path(root), profile, wait_s, print) for profile in profiles)
    return [line for of_profile in lines for line in of_profile]
