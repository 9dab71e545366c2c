"""The script of a driver that is a job of Slurm's, as sbatch takes it and a cluster's administrator may read it."""

import re
import shlex
from collections.abc import Iterator, Mapping

from ablate.execution.detached.driver_host import EXPENDABLE, DriverCommand
from ablate.execution.driver_records import JOB
from ablate.execution.pilots.cluster import Refused

LEAD_S = 60
"""Before its time is over the driver is told to go."""

SCRIPT = """\
#!/bin/bash
# The driver of ablate for the study {study}: a small process that has the study's pilot jobs submitted, and waits for
# them. Told by USR2 that its time is nearly over it goes, and has itself queued again; the pilot jobs go on meanwhile.
# It opens no port.
{directives}
cd {folder} || exit 1
export {job}="Slurm job $SLURM_JOB_ID of profile {profile}" {expendable}=1
leave() {{ is_leaving=1; kill -USR2 "$driver"; }}
trap leave USR2
{words} &
driver=$!
wait "$driver"; code=$?
while kill -0 "$driver" 2> /dev/null; do wait "$driver"; code=$?; done
[ -z "$is_leaving" ] || scontrol requeue "$SLURM_JOB_ID"
exit "$code"
"""


def driver_script(command: DriverCommand, profile: str, token: str, asked: Mapping[str, object]) -> str:
    """-> the script; `asked`: options of sbatch by their long names, None for what is left to the cluster.

    Raises Refused where a folder's name cannot stand in one.
    """
    return SCRIPT.format(
        study=command.study,
        directives="".join(f"#SBATCH --{line}\n" for line in _directives(command, token, asked)),
        folder=shlex.quote(str(command.folder)),
        job=JOB,
        expendable=EXPENDABLE,
        profile=re.sub(r"[^\w.-]", "_", profile),
        words=shlex.join(command.words),
    )


def _directives(command: DriverCommand, token: str, asked: Mapping[str, object]) -> Iterator[str]:
    log = str(command.log)
    if any(sign in log for sign in '"\\\n'):
        raise Refused(f"the file {log!r} has a sign in its name that no script of Slurm's can hold")
    yield f"job-name=ablate-driver-{command.study}"
    yield f'comment="{token}"'
    yield "nodes=1"
    yield "ntasks=1"
    yield from (f"{name}={value}" for name, value in asked.items() if value is not None)
    yield "requeue"
    yield f"signal=B:USR2@{LEAD_S}"
    yield "open-mode=append"
    yield f'output="{log.replace("%", "%%")}"'
