"""Whether this machine is fit to run studies under a root: each thing tried for real, and what to do where it fails."""

import contextlib
import importlib.metadata
import os
import platform
import resource
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from ablate.core import disk, hub, package, plain_files, processes
from ablate.core.doctor_line import Line, State
from ablate.core.text import data_size
from ablate.execution import attempts
from ablate.execution.executors.launch import start_fresh
from ablate.machine import address_space, gpu_leases, gpus, lock_folders, network
from ablate.machine.slots import Slot
from ablate.maintenance.filesystem_checks import CHECKS, run_check
from ablate.stages.toy import ToySettings
from ablate.store.stage import Stage
from ablate.store.store import Store

LITTLE_DISK, TOO_LITTLE_DISK = 20 * 10**9, 10**9
LITTLE_MEMORY = 4 * 10**9
NUM_FILES, NUM_PROCESSES = 1024, 256
DRIVER = Path("/proc/driver/nvidia/version")
HUB_S = 5.0
STAGE_S = 60.0
FOR_ALL_USERS = f"where users share cards, an administrator: install -d -o root -m 1777 {lock_folders.SHARED}"


def doctor(root: Path) -> Iterator[Line]:
    """-> one line a thing, as it is tried. Writes nothing that stays."""
    there = next(path for path in (root.resolve(), *root.resolve().parents) if path.is_dir())
    yield from _machine()
    yield from _disk("disk of the root", there)
    yield from _disk("disk of the hub's cache", _hub_cache())
    yield from _limits()
    yield from _address_space()
    yield from _shared_memory()
    yield _network()
    yield from _file_system(there)
    yield from _libraries()
    yield from _cards()
    yield from _hub()
    yield from _stage(there)


# the machine


def _machine() -> Iterator[Line]:
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory()
    yield Line("ok", "python", f"{platform.python_version()} on {platform.platform()}")
    state: State = "ok" if memory.available >= LITTLE_MEMORY else "warning"
    advice = "" if state == "ok" else "end what else runs here, or --jobs 1"
    yield Line(
        state, "memory", f"{data_size(memory.available)} of {data_size(memory.total)} free, {cores} cores", advice
    )


def _disk(what: str, path: Path) -> Iterator[Line]:
    free = shutil.disk_usage(path).free
    state: State = "ok" if free >= LITTLE_DISK else "warning" if free >= TOO_LITTLE_DISK else "problem"
    advice = "" if state == "ok" else "`ablate gc` frees what no study needs; HF_HOME and --root choose another disk"
    yield Line(state, what, f"{data_size(free)} free at {path}", advice)


def _hub_cache() -> Path:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).resolve()
    return next(path for path in (cache, *cache.parents) if path.is_dir())


def _limits() -> Iterator[Line]:
    limits = {
        "open files": (resource.RLIMIT_NOFILE, NUM_FILES, "ulimit -n"),
        "processes": (resource.RLIMIT_NPROC, NUM_PROCESSES, "ulimit -u"),
    }
    for what, (limit, least, command) in limits.items():
        soft, _ = resource.getrlimit(limit)
        is_enough = soft == resource.RLIM_INFINITY or soft >= least
        many = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft:,}"
        advice = "" if is_enough else f"{command} {least} or more"
        yield Line("ok" if is_enough else "warning", what, f"{many} at once", advice)


def _address_space() -> Iterator[Line]:
    limit = address_space.limit_bytes()
    if limit is not None:
        is_enough = limit >= address_space.NEEDED_BYTES
        advice = "" if is_enough else "ulimit -v unlimited: torch reserves far more than it uses memory"
        yield Line("ok" if is_enough else "warning", "address space", f"{data_size(limit)} for each process", advice)


def _shared_memory() -> Iterator[Line]:
    path = Path("/dev/shm")
    if not path.is_dir():
        yield Line("ok", "shared memory", "no /dev/shm; none is needed")
        return
    free = shutil.disk_usage(path).free
    is_enough = free >= 64 << 20
    advice = "" if is_enough else "a container's --shm-size; some libraries of CUDA want it"
    yield Line("ok" if is_enough else "warning", "shared memory", f"{data_size(free)} free in /dev/shm", advice)


def _network() -> Line:
    """What keeps a stage that works offline from sending anything."""
    way = network.possible()
    if way == "switches":
        advice = "unprivileged user namespaces (sysctl user.max_user_namespaces), or a container that allows seccomp"
        text = "libraries are told not to use it; this system lets no user shut it to code of a model or task"
        return Line("warning", "network of stages", text, advice)
    how = "a namespace without one" if way == "namespace" else "a filter of system calls"
    return Line("ok", "network of stages", f"off but for fetch, by {how}")


# the file system


def _file_system(there: Path) -> Iterator[Line]:
    try:
        with tempfile.TemporaryDirectory(prefix=".ablate-doctor-", dir=there) as folder:
            for what, check in CHECKS.items():
                yield run_check(what, check, Path(folder))
    except OSError as error:
        yield Line("problem", "file system", f"{there} cannot be written: {error.strerror}", "another --root")


# libraries, cards, hub


def _libraries() -> Iterator[Line]:
    """Their versions from what is installed; nothing is imported."""
    tested, other = _tested(), []
    for requirement in map(Requirement, importlib.metadata.requires("ablate") or []):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        here = _version(requirement.name)
        if here is None or not requirement.specifier.contains(here, prereleases=True):
            advice = f"pip install '{requirement.name}{requirement.specifier}'"
            yield Line("problem", requirement.name, f"{here or 'not installed'}; {requirement.specifier}", advice)
        elif tested.get(requirement.name, here) != here.partition("+")[0]:
            other.append(f"{requirement.name} {here} ({tested[requirement.name]})")
    yield Line("ok", "libraries", f"other than tested: {', '.join(other)}" if other else "as they were tested")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _tested() -> dict[str, str]:
    """-> name: version, of constraints.txt, which lies in the package, or beside it in a checkout."""
    places = (package.FOLDER / "constraints.txt", package.FOLDER.parent / "constraints.txt")
    path = next((path for path in places if path.is_file()), None)
    lines = path.read_text().splitlines() if path else []
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def _cards() -> Iterator[Line]:
    cards = gpus.cards()
    if not cards:
        yield _no_card()
        return
    usable = gpus.visible_here()
    yield Line("ok", "driver", gpus.driver_version())
    for card in cards:
        yield _card(card, is_usable=card in usable)
    if not usable:
        yield Line("warning", "cards", "CUDA_VISIBLE_DEVICES leaves none", "unset it, or stages run on the CPU")
    yield _leases()
    if (version := _version("torch") or "").endswith("+cpu"):
        yield Line("problem", "torch", f"{version} cannot use the cards", "install torch for CUDA: pytorch.org")


def _no_card() -> Line:
    if DRIVER.exists():
        advice = "nvidia-smi and the kernel's log (dmesg) say more; in a container: started with --gpus?"
        return Line("problem", "cards", "the NVIDIA driver is loaded, and no card answers", advice)
    return Line("ok", "cards", "no NVIDIA driver: stages run on the CPU")


def _card(card: gpus.Card, *, is_usable: bool) -> Line:
    memory = f"{card.name}, {data_size(card.free_bytes)} of {data_size(card.total_bytes)} free"
    held = "".join(f"; {holder}" for holder in card.holders)
    hidden = "" if is_usable else "; hidden by CUDA_VISIBLE_DEVICES"
    return Line("ok", f"card {card.number}", f"{memory}{held}{hidden}")


def _leases() -> Line:
    """A card is shared by locks on files of this host: one share is asked for twice."""
    name = f"doctor-{os.getpid()}"
    try:
        one, other = (gpu_leases.Lease(name, 1, 1) for _ in range(2))
    except OSError as error:
        return Line("problem", "claims of cards", error.strerror or "no locks", FOR_ALL_USERS)
    folder = one.folder
    try:
        is_right = one.is_had() and not other.is_had()
        one.release()
        other.release()
    finally:
        for entry in plain_files.entries(folder.path):
            if entry.path.name.startswith(f"{name}."):
                disk.unlink(entry.path)
    if not is_right:
        return Line("problem", "claims of cards", f"given to everyone in {folder.path}", FOR_ALL_USERS)
    whose = (
        "for all users" if folder.is_shared else "for your own runs; other users are known by their memory on a card"
    )
    text = "; ".join([f"one at a time, in {folder.path}, {whose}", *folder.problems])
    return Line(
        "warning" if folder.problems else "ok", "claims of cards", text, "" if folder.is_shared else FOR_ALL_USERS
    )


def _hub() -> Iterator[Line]:
    from huggingface_hub import get_token

    token = "there is one" if get_token() else "none: enough for what is not gated; else `hf auth login`"
    yield Line("ok", "token", token)
    if hub.is_offline():
        yield Line("ok", "hub", "HF_HUB_OFFLINE: not asked; what is fetched already is used")
        return
    problem = _unreachable(hub.endpoint())
    advice = "what is fetched already is used; a proxy goes into HTTPS_PROXY, a mirror into HF_ENDPOINT"
    yield Line("warning", "hub", problem, advice) if problem else Line("ok", "hub", f"{hub.endpoint()} answers")


def _unreachable(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=HUB_S):
            return None
    except urllib.error.HTTPError:
        return None  # it answers
    except (OSError, ValueError) as error:
        return f"{url} does not answer: {getattr(error, 'reason', error)}"


# a stage


def _stage(there: Path) -> Iterator[Line]:
    """A worker started, watched and committed, as a run does it."""
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(prefix=".ablate-doctor-", dir=there) as folder:
        store, stage = Store(Path(folder)), Stage("toy", 1, ToySettings())
        attempt, me = store.claim(stage.key12), processes.identity()
        assert me
        driver = {"label": "a toy", "study": "doctor", "driver": me.model_dump()}
        slot = Slot("cpu", frozenset({"heavy"}))
        attempt.write_request(attempts.request(store, stage, slot, STAGE_S, STAGE_S) | driver)
        began, worker = time.monotonic(), start_fresh(attempt)
        try:
            worker.wait(STAGE_S)
        except subprocess.TimeoutExpired:
            processes.kill_session(processes.identity(worker.pid) or me)
        if store.done(stage):
            yield Line("ok", "a stage", f"run in {time.monotonic() - began:.1f} s")
        else:
            why = (attempt.exit or {}).get("message") or attempt.log.read_text(errors="replace")[-400:]
            yield Line("problem", "a stage", f"a stage that only counts came to nothing: {why}")
