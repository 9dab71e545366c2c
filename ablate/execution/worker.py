"""The inner process of a worker: builds the job, has the kind do it, checks the result and commits it."""

import errno
import gc
import importlib.metadata
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from ablate.core import disk, plain_files, processes, shared_folders
from ablate.core.entry_points import versions_in
from ablate.core.errors import Diverged, StageError
from ablate.core.failures import Ending, ending_of
from ablate.core.values import Json, digest, identity
from ablate.execution.executors.base import environment
from ablate.execution.place_record import place_record
from ablate.execution.rank_processes import ALONE, Rank, RankProcesses, Verdict, take_share
from ablate.machine import card_memory, network
from ablate.store.attempt import Attempt
from ablate.store.checkpoints import Checkpoints, ReadCheckpoints
from ablate.store.job import Job, MetricsLog, UnwrittenMetrics
from ablate.store.kind import KINDS, Kind
from ablate.store.manifest import sound_manifest
from ablate.store.store import Store

CONTEXT_BYTES = 600 << 20
"""What CUDA itself takes of a card for a process."""
LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "lm_eval")


def main(attempt: Attempt, request: dict[str, Any], output: int, verdict: int, parent: int) -> NoReturn:
    """The life of the worker, from the fork to its end; the ending goes as JSON into `verdict`."""
    if request["slot"]["device"] == "cuda":
        card_memory.require_device()
    num_ranks = 1 if request.get("spread") == "layers" else request.get("num_cards", 1)
    others, word = RankProcesses(num_ranks), Verdict(verdict)
    reach = "open" if request["is_online"] else network.shut(needs_loopback=others.num > 1)
    processes.die_with_parent(parent)
    _settle(attempt, request, output)
    stopping = _stopping()
    try:
        _require_spread(request)
        rank = others.fork(word)
        others.watch(word.end)
        request |= {"network": reach, "slot": take_share(rank, request["slot"])}
        ending = work(attempt, request, stopping, rank)
    except BaseException as error:  # the one broad except: a failed stage is a result, and its row says why
        traceback.print_exc()
        ending = others.explained(error)
    word.end(ending)


def _settle(attempt: Attempt, request: dict[str, Any], output: int) -> None:
    """Streams, folder, environment and signals of its own."""
    with open(os.devnull) as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = open(1, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(attempt.path)
    settings = environment(request)
    os.environ.clear()
    os.environ.update(settings)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _show_stacks_on_request()


def _show_stacks_on_request() -> None:
    import faulthandler

    faulthandler.enable(file=2)
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)


def _stopping() -> Callable[[], bool]:
    """-> whether the supervisor sent SIGTERM."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    # lm-eval's bootstrap ends its pool of processes by this signal, and would wait for ever for one that notes it down
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    return lambda: bool(asked)


def work(attempt: Attempt, request: dict[str, Any], is_stopping: Callable[[], bool], rank: Rank = ALONE) -> Ending:
    """Does one request, or a rank's part of it. -> ok or diverged; raises whatever the kind raises."""
    store = Store(attempt.path.parents[3])
    kind = KINDS[request["kind"]]
    job = _job(store, attempt, request, kind, is_stopping, rank)
    started, clock = datetime.now(UTC), time.monotonic()
    ending = _run(kind, job)
    if not job.is_first:
        return ending
    _give_back_memory(job.device)
    provenance = _provenance(request, job) | {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 3),
        "attempts": attempt.number,
    }
    record = {"payload": request["payload"], "settings": request["settings"], "provenance": provenance}
    is_diverged = ending.failure == "diverged"
    disk.write_json(attempt.staging / "stage.json", record | ({"diverged": ending.message} if is_diverged else {}))
    if not is_diverged:
        kind.check(attempt.staging)
    is_first = store.commit(attempt, f"{request['kind']}-{request['key'][:12]}", job.content)
    _tidy(store, attempt)
    return ending if is_first else Ending(ending.failure, "another attempt was first; its result is as good")


def _run(kind: Kind[Any], job: Job) -> Ending:
    try:
        kind.run(job)
    except Diverged as error:
        return ending_of(error)
    return Ending("ok", "")


def _job(
    store: Store,
    attempt: Attempt,
    request: dict[str, Any],
    kind: Kind[Any],
    is_stopping: Callable[[], bool],
    rank: Rank,
) -> Job:
    settings = _settings(kind, request)
    inputs = {name: _input(store, name, reference, request) for name, reference in request["inputs"].items()}
    aids = {name: _aid(store, reference) for name, reference in request.get("aids", {}).items()}
    inputs |= {name: folder for name, folder in aids.items() if folder}
    if rank.rank == 0:
        disk.make_folder(attempt.out)
        disk.make_folder(attempt.checkpoints)
        _adopt(store, attempt, request)
    _use(request["slot"])
    job = Job(
        settings=settings,
        inputs=inputs,
        out=attempt.out,
        metrics=MetricsLog(attempt.metrics),
        checkpoints=Checkpoints(attempt.checkpoints),
        device=request["slot"]["device"],
        device_name=_device_name(request["slot"]["device"]),
        checks=store.checks,
        tokens=store.tokens,
        progress_path=attempt.progress,
        is_stopping=is_stopping,
        grace_s=request["grace_s"],
    )
    if request.get("spread") == "layers":
        return replace(job, layer_devices=tuple(f"cuda:{number}" for number in range(request["num_cards"])))
    return _shared(job, rank, request) if rank.num > 1 else job


def _require_spread(request: dict[str, Any]) -> None:
    """Raises StageError where a request has several cards share a model as its kind of stage does not."""
    kind, spread = KINDS[request["kind"]], request.get("spread")
    if spread not in (None, kind.spread):
        raise StageError(
            f"the request says spread: {spread} for {request.get('num_cards', 1)} cards, but a {request['kind']} stage"
            f" shares a model that is larger than a card by {kind.spread or 'none'}: the driver is of another version"
            " of ablate; `ablate run` again, with this one",
            "mismatch",
        )


def _shared(job: Job, rank: Rank, request: dict[str, Any]) -> Job:
    """-> the job as one rank has it: the first alone writes. `spread` weights: of a model larger than a card."""
    is_sharded = request.get("spread") == "weights"
    job = replace(job, rank=rank.rank, num_ranks=rank.num, meeting=rank.meeting, is_sharded=is_sharded)
    if job.is_first:
        return job
    metrics, checkpoints = UnwrittenMetrics(job.metrics.path), ReadCheckpoints(job.checkpoints.folder)
    return replace(job, metrics=metrics, checkpoints=checkpoints, progress_path=None)


def _give_back_memory(device: str) -> None:
    """Of the card, before the result is looked at and committed: its neighbours can have it then."""
    if device == "cuda":
        import torch

        gc.collect()
        torch.cuda.empty_cache()


def _settings(kind: Kind[Any], request: dict[str, Any]) -> Any:
    """-> the request's settings. Raises StageError when this code gives the stage another key than the plan did."""
    settings = kind.Settings.model_validate(request["settings"])
    payload = request["payload"] | {"kind": request["kind"], "version": kind.version, "settings": identity(settings)}
    if digest(payload) != request["key"]:
        raise StageError(
            f"code and plan disagree: the plan said {request['kind']}-{request['key'][:12]} of version"
            f" {request['version']}, this code makes {request['kind']}-{digest(payload)[:12]} of version"
            f" {kind.version} of it",
            "mismatch",
        )
    return settings


def _input(store: Store, name: str, reference: dict[str, str], request: dict[str, Any]) -> Path:
    """-> the folder of an input. Raises StageError when it is not there whole, or is another one."""
    folder = store.root / reference["folder"]
    if _is_of_another_machine(request):  # which has seen it done
        shared_folders.awaited(lambda: plain_files.what_is(folder), folder.parent)
    manifest, record = sound_manifest(folder), disk.read_json(folder / "stage.json")
    if manifest is None or record is None:
        raise StageError(f"input {name!r} ({reference['folder']}) is gone or a file of it lacks", "missing_input")
    is_named = request["payload"]["inputs"][name] in (manifest["content"], digest(record["payload"]))
    if not is_named or digest(record["payload"]) != reference["key"]:
        raise StageError(f"input {name!r} ({reference['folder']}) is another one than the plan said", "missing_input")
    return folder


def _is_of_another_machine(request: dict[str, Any]) -> bool:
    return bool(request["driver"]["host"] != platform.node())


def _aid(store: Store, reference: dict[str, str]) -> Path | None:
    """-> the folder of an aid, None when it went meanwhile: the stage can do without."""
    folder = store.root / reference["folder"]
    record = disk.read_json(folder / "stage.json") if sound_manifest(folder) else None
    return folder if record and digest(record["payload"]) == reference["key"] else None


def _adopt(store: Store, attempt: Attempt, request: dict[str, Any]) -> None:
    """Takes over the furthest checkpoint of the earlier attempts; it holds the metrics that led to it."""
    earlier = [other for other in store.attempts(attempt.key12) if other.number < attempt.number]
    saved = [(step, other) for other in earlier if (step := _latest_step(other)) is not None]
    for step, other in sorted(saved, key=lambda pair: (pair[0], pair[1].number), reverse=True):
        if (other.request or {}).get("key") != request["key"]:
            continue
        # the other one may still be at it and drop the checkpoint while it is copied: then the next best
        try:
            Checkpoints(attempt.checkpoints).adopt(Checkpoints(other.checkpoints))
        except OSError as error:
            if not _is_dropped(error):
                raise
            continue
        print(f"[ablate] goes on from step {step} of attempt {other.number}")
        return


def _is_dropped(error: OSError) -> bool:
    """Whether another process, or another machine, has removed what was being read."""
    return error.errno in (errno.ENOENT, errno.ESTALE)


def _latest_step(attempt: Attempt) -> int | None:
    """-> the step of its last checkpoint; None without one, or where it is dropped while we look."""
    try:
        latest = Checkpoints(attempt.checkpoints).latest()
    except OSError as error:
        if not _is_dropped(error):
            raise
        return None
    return latest[0] if latest else None


def _use(slot: dict[str, Any]) -> None:
    """Takes the slot's threads and card. Raises StageError when this torch cannot use the card."""
    torch: Any = sys.modules.get("torch")
    if torch:  # forked: what OMP_NUM_THREADS says was read before the fork
        torch.set_num_threads(slot["threads"])
    if slot["device"] == "cuda":
        import torch

        if not torch.cuda.is_available():
            card = slot["gpu"] or "of its slot"
            raise StageError(
                f"torch {torch.__version__} cannot use the card {card}; with CUDA_VISIBLE_DEVICES= (empty)"
                " the study runs on the CPU"
            )
        _stay_within(torch, slot)


def _stay_within(torch: Any, slot: dict[str, Any]) -> None:
    """Holds a stage to its shares: what it asks beyond is its own lack of memory, never its neighbour's."""
    if slot["shares"] < slot["num_shares"]:
        room = slot["memory_bytes"] * slot["shares"] / slot["num_shares"] - CONTEXT_BYTES
        torch.cuda.set_per_process_memory_fraction(min(1.0, room / torch.cuda.get_device_properties(0).total_memory))


def _provenance(request: dict[str, Any], job: Job) -> dict[str, Json]:
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES if name in sys.modules}
    return {
        "host": platform.node(),
        **place_record(request),
        "python": platform.python_version(),
        "device": job.device_name,
        "threads": request["slot"]["threads"],
        **({"processes": job.num_ranks} if job.num_ranks > 1 else {}),
        "network": request.get("network", "open"),
        "versions": versions | versions_in(request["payload"]["settings"]),
        "notes": job.notes,
    }


def _device_name(device: str) -> str:
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name(0))
    return processes.processor()


def _tidy(store: Store, attempt: Attempt) -> None:
    """Removes what attempts at a committed stage left to go on from, but nothing of one that may still run."""
    for other in store.attempts(attempt.key12):
        if other.path == attempt.path or other.exit:
            disk.remove_tree(other.checkpoints)
            disk.remove_tree(other.staging)
