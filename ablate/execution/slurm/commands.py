"""Slurm's own commands: run with a time-out, in an environment without tokens, their errors in words."""

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence

from ablate.core import secrets
from ablate.execution.pilots.cluster import Refused, Unreachable

PASSING = re.compile(
    r"unable to contact|socket timed out|zero bytes|connection (refused|reset|timed out)|temporarily unable"
    r"|temporarily unavailable|standby mode|slurmctld.*(down|not responding)|unable to establish"
    r"|transport endpoint|communications? (connection )?failure|message (receive|send) failure|network is unreachable"
    r"|no route to host|name or service not known|munge|protocol authentication|invalid authentication credential"
    r"|slurmdbd",
    re.IGNORECASE,
)
"""What the commands say where another try may go better; some of it is said of jobs that were taken all the same."""
_POLICY = re.compile(r"violates accounting/QOS policy", re.IGNORECASE)
"""Said of any limit; most versions of Slurm name it in a line before: QOSMaxSubmitJobPerUserLimit."""
_LIMIT = re.compile(r"\b(?:QOS|Assoc|Account)[A-Z]\w+")
WORDS = 400
"""Characters of what a command says that are kept, of its begin and its end."""
KEPT_OF_SLURM = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER"})
_OF_A_JOB = re.compile(
    r"^(SLURM|SBATCH|SRUN|SALLOC|SQUEUE|SCANCEL|SACCT|SCONTROL|PMI|PMIX)\w*"
    r"|^(CUDA_VISIBLE_DEVICES|ROCR_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL|HOSTNAME)$"
)
"""What belongs to the job, or the machine, in which a driver runs: a job that it submits has its own."""
_CREDENTIALS = re.compile(r"(^|_)CREDENTIALS$", re.IGNORECASE)


class CommandMissing(Refused):
    """One of Slurm's commands is not on this machine."""


class Full(Unreachable):
    """The cluster has as many jobs as it takes of this user: none that was sent was taken, a later one may be."""


def environment(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """-> what a job may inherit, and Slurm may keep: no token or password, nothing of a job that this runs in."""
    kept = {name: secrets.without_userinfo(value) for name, value in given.items() if _may_stay(name)}
    return {name: value for name, value in kept.items() if secrets.hidden(value) == value}


def _may_stay(name: str) -> bool:
    if name in KEPT_OF_SLURM:
        return True
    return not (secrets.is_named_so(name) or _CREDENTIALS.search(name) or _OF_A_JOB.match(name))


def answer(words: Sequence[str], *, timeout_s: float, text: str = "", settings: Mapping[str, str] | None = None) -> str:
    """-> what a command prints. Raises Unreachable where it fails in passing or does not answer, Refused otherwise."""
    try:
        process = subprocess.Popen(
            list(words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment() if settings is None else settings,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise CommandMissing(
            f"there is no command {words[0]!r} here: Slurm is spoken to from a login node of its cluster, where sbatch,"
            " squeue, scancel and scontrol are in PATH"
        ) from error
    except OSError as error:
        raise Unreachable(f"{words[0]} could not be started: {error}") from error
    with process:
        try:
            out, problem = process.communicate(text, timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            raise Unreachable(f"{words[0]} gave no answer in {timeout_s:g} s") from error
    if process.returncode != 0:
        raise _failed(words[0], process.returncode, problem or out)
    return out


def _failed(name: str, code: int, problem: str) -> Unreachable | Refused:
    text = "; ".join(line.removeprefix(f"{name}: ").removeprefix("error: ") for line in problem.splitlines()).strip()
    words = secrets.hidden(f"{name}: {_shortened(text)}" if text else f"{name} failed with code {code} and no word")
    if _POLICY.search(text):
        limits = _LIMIT.findall(text)
        return Refused(words) if limits and not any("Submit" in limit for limit in limits) else Full(words)
    return Unreachable(words) if not text or PASSING.search(text) else Refused(words)


def _shortened(text: str) -> str:
    """-> without its middle, where it is long: what a site greets with comes first, what Slurm says last."""
    return text if len(text) <= WORDS else f"{text[: WORDS // 2]} ... {text[-WORDS // 2 :]}"
