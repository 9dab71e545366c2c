"""The script of pilot jobs, as sbatch takes it and a cluster's administrator may read it."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from ablate.execution.pilots.cluster import Refused
from ablate.execution.pilots.pilot_job import PilotJob
from ablate.execution.slurm import job_table
from ablate.execution.slurm.options import SlurmOptions
from ablate.execution.slurm.units import slurms_time

ABOUT = """\
# Pilot jobs of ablate for the study {study}. Each holds what it asks for and works on one stage of the study after
# another, as files in its folder tell it; it leaves when its time runs low, or when there is no more work. Told by USR2
# that its time is nearly over, it saves and leaves; begun anew, it goes on. It opens no port.
"""


def script(jobs: Sequence[PilotJob], options: SlurmOptions, python: str) -> str:
    """-> the script for consecutive jobs of one study: an array where there are several, its tasks counted from 0.

    Raises Refused where the folder's name cannot stand in one.
    """
    first = jobs[0]
    study = first.path.parent
    directives = "".join(f"#SBATCH --{line}\n" for line in _directives(jobs, options, study.absolute()))
    setup = "".join(f"{line}\n" for line in options.setup)
    return (
        "#!/bin/bash\n"
        + ABOUT.format(study=first.study)
        + directives
        + f"\njob={shlex.quote(str(study.absolute()))}/{_number(jobs)}\n"
        + 'exec >> "$job/log.txt" 2>&1\n'
        + (f"set -e\n{setup}set +e\n" if setup else "")
        + f'exec {shlex.quote(python)} -P -m ablate.execution.pilots.pilot "$job"\n'
    )


def _number(jobs: Sequence[PilotJob]) -> str:
    first = jobs[0].number
    return str(first) if len(jobs) == 1 else f"$(({first} + SLURM_ARRAY_TASK_ID))"


def _directives(jobs: Sequence[PilotJob], options: SlurmOptions, study: Path) -> Iterator[str]:
    yield f"job-name={job_table.name(jobs[0].study)}"
    yield f'comment="{job_table.comment([job.token for job in jobs])}"'
    if len(jobs) > 1:
        yield f"array=0-{len(jobs) - 1}"
    yield "nodes=1"
    yield "ntasks=1"
    yield from _asked(options)
    yield "requeue"
    yield f"signal=B:USR2@{options.signal_lead_s:.0f}"
    yield "open-mode=append"
    yield f'output="{_path(study)}/log.txt"'


def _asked(options: SlurmOptions) -> Iterator[str]:
    """What the profile says, and nothing of what it leaves to the cluster."""
    asked = {
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "time": slurms_time(options.time) if options.time else None,
        "gres": options.gres,
        "cpus-per-task": options.cpus,
        "mem": options.memory,
        "constraint": f'"{options.constraint}"' if options.constraint else None,
        "nice": options.nice or None,
    }
    yield from (f"{name}={value}" for name, value in asked.items() if value is not None)
    for name, value in sorted(options.extra.items()):
        if value is True or value is None:
            yield name
        elif value is not False:
            yield f'{name}="{value}"' if " " in str(value) else f"{name}={value}"


def _path(folder: Path) -> str:
    """-> a folder's name as the pattern of a file of Slurm's: what it would replace stands twice."""
    text = str(folder)
    if any(sign in text for sign in '"\\\n'):
        raise Refused(f"the folder {text!r} has a sign in its name that no script of Slurm's can hold")
    return text.replace("%", "%%")
