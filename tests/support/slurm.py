"""A real Slurm for tests, on this machine alone: munged, slurmctld and fake nodes, on ports of their own.

Debian's packages are installed where they are missing and this is root; no service of the system is started or used.
"""

import atexit
import contextlib
import fcntl
import getpass
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ablate.core import processes
from support.processes import command_line, environment, is_alive
from support.toys import wait_for

COMMANDS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol")
PACKAGES = ("slurm-wlm", "munge")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
NUM_GPUS = 4
"""Of a node, and of no use but to be counted."""
FIT = {"idle", "mixed"}
"""States of a node that takes jobs; the other has some that are kept."""

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldAddr=127.0.0.1
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SrunPortRange={first}-{last}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0,sched_min_interval=0
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
GresTypes=gpu
ReturnToService=2
KillWait=3
SlurmctldTimeout=30
SlurmdTimeout={node_timeout_s}
MessageTimeout=5
MaxArraySize={max_array}
AccountingStorageType=accounting_storage/none
DefMemPerCPU=100
PartitionName=batch Nodes=ALL Default=YES PriorityTier=1 GraceTime=5 MaxTime=INFINITE DefaultTime=60 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE DefaultTime=60 State=UP
PartitionName=short Nodes=ALL PriorityTier=1 MaxTime=2 DefaultTime=2 State=UP
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory}"
    " Gres=gpu:fake:{gpus} State=UNKNOWN\n"
)


class NoSlurm(Exception):
    """What is missing."""


class RealSlurm:
    """The daemons, children of this process: they end with it, however it ends."""

    def __init__(
        self, root: Path, *, num_nodes: int = 2, cpus: int = 16, node_timeout_s: int = 10, max_array: int = 1001
    ) -> None:
        self.root = root
        self.conf = root / "slurm.conf"
        self.variables = {"SLURM_CONF": str(self.conf), "PATH": PATH}
        """Of the environment of whoever speaks to it."""
        self.environment = {**os.environ, **self.variables, "LC_ALL": "C"}
        self.kept: tuple[str, ...] = ()
        """How the comments of jobs begin that outlive a test."""
        self.nodes = [f"node{number}" for number in range(num_nodes)]
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("state", "spool", "gpus"):
            (root / name).mkdir()
        host, port = socket.gethostname().partition(".")[0], _free_ports(num_nodes + 101)
        text = CONFIG.format(
            host=host, port=port, user=getpass.getuser(), root=root, first=port + num_nodes + 1,
            last=port + num_nodes + 100, node_timeout_s=node_timeout_s, max_array=max_array,
        )  # fmt: skip
        lines = [
            NODE.format(name=name, host=host, port=port + 1 + n, cpus=cpus, memory=cpus * 500, gpus=NUM_GPUS)
            for n, name in enumerate(self.nodes)
        ]
        self.conf.write_text(text.replace("PartitionName=batch", "".join(lines) + "PartitionName=batch", 1))
        gpus = [f"Name=gpu Type=fake File={path}" for path in _device_files(root / "gpus")]
        (root / "gres.conf").write_text("\n".join(["AutoDetect=off", *gpus]) + "\n")

    # the daemons

    def start(self) -> None:
        key = self.root / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        options = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid", "seed-file": "munge.seed"}
        places = [f"--{name}={self.root}/{file}" for name, file in options.items()]
        self._spawn("munged", "--foreground", "--force", f"--log-file={self.root}/munged.log", *places)
        wait_for(lambda: (self.root / "munge.sock").exists(), 20)
        self.start_controller()
        for name in self.nodes:
            self.start_node(name)
        wait_for(lambda: self.states_of_nodes() <= {"idle"}, 60)

    def start_controller(self) -> None:
        self._spawn("slurmctld", "-D", "-f", str(self.conf))
        wait_for(lambda: self.ask("scontrol", "ping", check=False).count("UP"), 30)

    def kill_controller(self) -> None:
        self._kill("slurmctld")

    def pause_controller(self) -> None:
        self._daemons["slurmctld"].send_signal(signal.SIGSTOP)

    def resume_controller(self) -> None:
        self._daemons["slurmctld"].send_signal(signal.SIGCONT)

    def save_jobs(self) -> None:
        """Has the controller write down what runs: killed before it has, it would know of no such job, and begin it
        anew.
        """
        asked_at, saved = time.time(), self.root / "state/job_state"
        for job in self.jobs("RUNNING"):
            self.ask("scontrol", "update", f"JobId={job}", "TimeLimit=+1")  # a change
        wait_for(lambda: saved.exists() and saved.stat().st_mtime > asked_at, 60)

    def start_node(self, name: str) -> None:
        self._spawn("slurmd", "-D", "-f", str(self.conf), "-N", name, name=name)

    def kill_node(self, name: str) -> None:
        """As if its power failed: the daemon, the step managers and all that jobs run there."""
        self._kill(name)
        there = [process for process in self._processes() if self._is_on(process, name)]
        for process in sorted(there, key=lambda process: process.name() != "slurmstepd"):  # before it can tell
            _end(process)

    def stop(self) -> None:
        """Ends all, whatever state it is in."""
        if "slurmctld" in self._daemons:
            self.resume_controller()
        for name in [*self._daemons][::-1]:
            self._kill(name)
        for _ in range(50):
            left = self._processes()
            if not left:
                return
            for process in left:
                _end(process)
            time.sleep(0.05)

    def _spawn(self, command: str, *words: str, name: str | None = None) -> None:
        me = os.getpid()
        with (self.root / f"{name or command}.out").open("ab") as out:
            self._daemons[name or command] = subprocess.Popen(
                [shutil.which(command, path=PATH) or command, *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.environment,
                cwd=self.root,
                start_new_session=True,
                preexec_fn=lambda: processes.die_with_parent(me),
            )

    def _kill(self, name: str) -> None:
        daemon = self._daemons.pop(name, None)
        if daemon:
            helpers: list[psutil.Process] = []
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
                helpers += psutil.Process(daemon.pid).children() if name == "slurmctld" else []
            daemon.kill()
            daemon.wait()
            for process in helpers:
                _end(process)

    def _processes(self) -> list[psutil.Process]:
        """What runs by this Slurm, or for it: jobs, what they started, step managers, commands."""
        others = [process for process in psutil.process_iter() if process.pid != os.getpid()]
        return [process for process in others if self._is_of_it(process)]

    def _is_of_it(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() == "slurmstepd":  # it hides its words and its environment
                return any(str(self.root) in place for place in _open_places(process))
        is_its = environment(process).get("SLURM_CONF") == str(self.conf)
        return is_alive(process) and (is_its or str(self.root) in " ".join(command_line(process)))

    def _is_on(self, process: psutil.Process, node: str) -> bool:
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() == "slurmstepd":
                return any(node in place for place in _open_places(process))
        return environment(process).get("SLURMD_NODENAME") == node

    # what it says

    def ask(self, *words: str, check: bool = True, text: str | None = None) -> str:
        """-> what one of Slurm's commands prints."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, input=text, timeout=60, check=False
        )
        assert done.returncode == 0 or not check, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def states_of_nodes(self) -> set[str]:
        answer = self.ask("sinfo", "--noheader", "--Node", "--partition=batch", "--format=%T", check=False)
        return set(answer.split()) or {"unknown"}

    def jobs(self, *states: str) -> dict[str, str]:
        """-> id -> comment of the jobs, tasks of arrays singly, in these states; of those not over unless said."""
        of_states = [f"--states={','.join(states)}"] if states else []
        answer = self.ask("squeue", "--noheader", "--array", "--format=%i|%k", *of_states)
        comments = dict(line.split("|", 1) for line in answer.splitlines())
        return {job: text for job, text in comments.items() if not text.startswith(self.kept)}

    def node_of(self, job: str) -> str:
        return self.ask("squeue", "--noheader", "--array", "--jobs", job, "--format=%B").strip()

    def set_partition(self, state: str) -> None:
        """DOWN: jobs wait; UP: they start."""
        self.ask("scontrol", "update", "PartitionName=batch", f"State={state}")

    def clear(self) -> None:
        """Ends all jobs but those that are kept, and has every node fit for new ones."""
        if "slurmctld" not in self._daemons:
            self.start_controller()
        self.resume_controller()
        for name in self.nodes:
            if name not in self._daemons:
                self.start_node(name)
        if left := self.jobs():
            self.ask("scancel", *left, check=False)
        wait_for(lambda: not self.jobs(), 60)
        self.set_partition("UP")
        if not self.states_of_nodes() <= FIT:
            self.ask("scontrol", "update", f"NodeName={','.join(self.nodes)}", "State=RESUME", check=False)
            wait_for(lambda: self.states_of_nodes() <= FIT, 60)


@contextlib.contextmanager
def real_slurm(root: Path | None = None, **options: int) -> Iterator[RealSlurm]:
    """A Slurm that runs. Raises NoSlurm where it cannot be had."""
    require_packages()
    # the name of a socket is short, so it does not lie below a test's folder
    with tempfile.TemporaryDirectory(prefix="slurm-", dir=root) as folder:
        slurm = RealSlurm(Path(folder), **options)
        try:
            slurm.start()
            yield slurm
        finally:
            slurm.stop()


_SHARED: list[RealSlurm] = []


def shared_slurm() -> RealSlurm:
    """-> one for all tests of this process, from its first use to the process's end. Skips the test without one."""
    if not _SHARED:
        stack = contextlib.ExitStack()
        atexit.register(stack.close)
        try:
            _SHARED.append(stack.enter_context(real_slurm()))
        except NoSlurm as missing:
            pytest.skip(f"NOT TESTED on a real Slurm: {missing}")
    return _SHARED[0]


def require_packages() -> None:
    """Installs what is missing, where that is possible. Raises NoSlurm."""
    if missing := _missing():
        with (Path(tempfile.gettempdir()) / "ablate-tests-apt.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another worker of the tests may be at it
            if _missing():
                _install(missing)
    host = socket.gethostname()
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise NoSlurm(f"the name of this machine, {host}, is not known to itself (/etc/hosts)") from error


def _missing() -> list[str]:
    return [command for command in COMMANDS if shutil.which(command, path=PATH) is None]


def _install(missing: list[str]) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NoSlurm(f"no {', '.join(missing)} here: apt-get install {' '.join(PACKAGES)}")
    # RUNLEVEL: the packages' own scripts start no service
    settings = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", *words], env=settings, capture_output=True, text=True, check=False)
        if done.returncode and words[0] == "install":
            raise NoSlurm(f"apt-get install {' '.join(PACKAGES)} failed: {done.stderr.strip()[-300:]}")


def _free_ports(num: int) -> int:
    """-> the first of so many ports, none of which is in use now, below those that the system gives away."""
    for _ in range(50):
        first = random.randrange(12_000, 30_000, 150)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + num):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise NoSlurm("no free ports")


def _device_files(folder: Path) -> list[str]:
    """-> files that a node takes for cards: only with devices does it set CUDA_VISIBLE_DEVICES, and it opens none."""
    try:
        for number in range(NUM_GPUS):
            os.mknod(folder / f"gpu{number}", 0o600 | stat.S_IFCHR, os.makedev(240, number))
    except OSError:
        return ["/dev/null", "/dev/zero", "/dev/full", "/dev/random"]
    return [str(folder / f"gpu{number}") for number in range(NUM_GPUS)]


def _open_places(process: psutil.Process) -> list[str]:
    return [str(handle.readlink()) for handle in Path(f"/proc/{process.pid}/fd").iterdir()]


def _end(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):
        process.kill()
