"""One toy stage, worked on in this process, and what its root may hold afterwards."""

import contextlib
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ablate.core import disk, processes
from ablate.core.errors import Interrupted
from ablate.execution import worker
from ablate.store.attempt import Attempt
from ablate.store.checkpoints import Checkpoints
from ablate.store.store import Store
from support.toys import toy

CODES = ("ENOSPC", "EDQUOT", "EIO", "ESTALE", "EMFILE", "EROFS")  # not EINTR: Python itself goes on after one

STAGE = toy(steps=3)


def work(attempt: Attempt, is_stopping: Callable[[], bool]) -> None:
    """What a worker does, in this process."""
    me = processes.identity()
    assert me
    assert disk.create(attempt.worker, me.model_dump_json())
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            ending = worker.work(attempt, attempt.request, is_stopping)
    except Interrupted:
        attempt.write_exit(failure="preempted", message="")
    else:
        attempt.write_exit(failure=ending.failure, message=ending.message)


def committed(root: Path) -> dict[str, Any]:
    """What a stage amounts to: all but when and where it was made."""
    folder = Store(root).folder(STAGE)
    record = json.loads((folder / "stage.json").read_text())
    files = [folder / "metrics.jsonl", *(path for path in (folder / "out").rglob("*") if path.is_file())]
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return contents | {"payload": record["payload"], "settings": record["settings"]}


def require_nothing_half(root: Path, *, is_damaged: bool = False) -> None:
    """What can be seen is whole: stages to the last byte, and checkpoints that count."""
    for folder in [] if is_damaged and Store(root).done(STAGE) is None else root.glob("runs/stages/*"):
        manifest = json.loads((folder / "done.json").read_text())
        digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest["files"]}
        assert digests == {name: file["sha256"] for name, file in manifest["files"].items()}
    for attempt in Store(root).attempts(STAGE.key12):
        for step, path in Checkpoints(attempt.checkpoints).complete():
            assert len((path / "metrics.jsonl").read_text().splitlines()) == step
