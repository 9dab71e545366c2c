"""A real Ray: a head, and more nodes, on loopback addresses of their own, for the tests that want one.

As a command it is a driver of toys on it, which tests can kill.
"""

import contextlib
import ctypes
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from ablate.core.processes import PR_SET_PDEATHSIG
from ablate.execution.driver import Summary, driving
from ablate.execution.fleet import fleet_of
from ablate.execution.profiles import Profile
from ablate.machine.slots import Placing
from ablate.store.stage import Stage
from ablate.store.store import Store
from support.executors import Service
from support.toys import chain, quiet

START_S = 60.0
HEAD = "127.0.0.2"
NUM_CPUS = 8
"""Of every node."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_health_check_initial_delay_ms": "1000",  # a node that is killed is missed within seconds, not fifteen
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # nodes without a head end after so long, not sixty
}
QUICK = {
    "num_gpus": 0,
    "max_jobs": 2,
    "look_s": 0.3,
    "idle_s": 3.0,
    "margin_s": 0.0,
    "missing_s": 2.0,
    "answer_s": 8.0,
    "submissions_per_minute": 600,
    "fork_server": False,
}
"""A profile for toys that come and go."""


def require_ray() -> None:
    """Skips, and says so, where Ray cannot be had."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("NOTHING OF RAY IS TESTED: it is not installed (pip install -c constraints.txt '.[ray]')")


@dataclass
class RayNode:
    """One `ray start --block`, in a session of its own."""

    address: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def wait_until_ready(self) -> None:
        until = time.monotonic() + START_S
        while b"Ray runtime started" not in self.log.read_bytes():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    @property
    def raylet(self) -> psutil.Process:
        return next(one for one in psutil.Process(self.process.pid).children() if one.name() == "raylet")

    def stop(self) -> None:
        """Ends it in order; what does not end is killed."""
        started: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            started = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()
        for one in started:
            with contextlib.suppress(psutil.Error):
                one.kill()


@dataclass
class RayUnderTest:
    """A cluster: its first node is the head."""

    folder: Path
    port: int
    nodes: list[RayNode] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{HEAD}:{self.port}"

    def start_head(self) -> RayNode:
        return self._start(HEAD, "--head", f"--port={self.port}", "--include-dashboard=false", "--num-gpus=4")

    def start_node(self, **resources: float) -> RayNode:
        """-> another node, without cards, with resources of the names given."""
        own = f"--resources={json.dumps(resources)}"
        address = f"127.0.0.{len(self.nodes) + 3}"
        return self._start(address, f"--address={self.address}", own, "--include-log-monitor=false", "--num-gpus=0")

    def node_at(self, address: str) -> RayNode:
        return next(node for node in self.nodes if node.address == address)

    def _start(self, address: str, *more: str) -> RayNode:
        log = self.folder / f"node-{len(self.nodes)}.txt"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
                    *(f"--node-ip-address={address}", f"--num-cpus={NUM_CPUS}", "--object-store-memory=80000000"),
                    *(f"--temp-dir={self.folder}/{len(self.nodes)}", *more),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | SETTINGS,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self.nodes.append(RayNode(address, process, log))
        self.nodes[-1].wait_until_ready()
        return self.nodes[-1]


def _end_with_parent() -> None:
    """Has a node end in order when the tests are killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def ray_under_test() -> Iterator[RayUnderTest]:
    """A cluster without nodes yet; those that a test starts are stopped. Sockets have short paths."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    cluster = RayUnderTest(folder, _free_port())
    try:
        yield cluster
    finally:
        for node in reversed(cluster.nodes):
            node.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HEAD, 0))
        port: int = probe.getsockname()[1]
        return port


# for the contract of executors

HEAD_OF_TESTS = "ABLATE_TEST_RAY"
"""Address of the head that tests of one session share."""
HOLDER = f"""
import sys, time, ray
ray.init(sys.argv[1], log_to_driver=False, configure_logging=False)
@ray.remote(num_cpus={NUM_CPUS})
class Holder:
    def is_here(self): return True
holder = Holder.remote()
ray.get(holder.is_here.remote())
print("held", flush=True)
time.sleep(600)
"""
"""Takes all that the head has, as long as it lives."""


@contextlib.contextmanager
def shared_head() -> Iterator[None]:
    with ray_under_test() as cluster:
        cluster.start_head()
        os.environ[HEAD_OF_TESTS] = cluster.address
        try:
            yield
        finally:
            del os.environ[HEAD_OF_TESTS]


@contextlib.contextmanager
def ray_service() -> Iterator[Service]:
    """The shared head, for one test."""
    address = os.environ[HEAD_OF_TESTS]
    holders: list[subprocess.Popen[str]] = []

    def hold() -> None:
        command = [sys.executable, "-c", HOLDER, address]
        holders.append(subprocess.Popen(command, env=os.environ | SETTINGS, stdout=subprocess.PIPE, text=True))
        assert holders[-1].stdout
        assert holders[-1].stdout.readline() == "held\n"

    def release() -> None:
        for holder in holders:
            holder.kill()
            holder.wait()

    try:
        yield Service({"RAY_ADDRESS": address}, "job ablate-", 0.5, hold, release)
    finally:
        release()


# drivers


def profile_on(address: str, **options: object) -> Profile:
    return Profile("crowd", "ray", QUICK | {"address": address} | options)


def drive_on_ray(
    profile: Profile,
    root: Path,
    stages: Sequence[Stage],
    write: Callable[[str], None] = lambda _: None,
    study: str = "toys",
) -> Summary:
    """Runs the stages as `ablate run --executor crowd` would."""
    with driving(Store(root), study, fleet_of([profile], Placing()), quiet(write)) as driver:
        return driver.run(stages, lambda stage: stage.settings.steps)


def start_driver(
    profile: Profile, root: Path, length: int, study: str = "toys", **settings: object
) -> "subprocess.Popen[str]":
    """-> a run of a chain of toys, in a process of its own."""
    words = [json.dumps(profile.options), str(root), str(length), study, json.dumps(settings)]
    command = [sys.executable, "-m", "support.ray_cluster", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    options, folder, length, study, settings = sys.argv[1:]
    summary = drive_on_ray(
        Profile("crowd", "ray", json.loads(options)),
        Path(folder),
        chain(int(length), **json.loads(settings)),
        lambda line: print(line, flush=True),
        study,
    )
    sys.exit(summary.exit_code)
