"""One try at a stage: where its files lie, what was asked of it and how it ended."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.core import disk, plain_files
from ablate.store.manifest import listing_of

REQUEST = frozenset({
    "kind", "version", "payload", "key", "settings", "inputs", "aids", "slot", "is_online", "stall_s", "grace_s",
    "label", "study", "driver",
})  # fmt: skip
"""Fields of attempt.json."""
EXIT = frozenset({"failure", "message", "at", "seconds", "records"})
"""Fields of exit.json."""


@dataclass(frozen=True)
class Attempt:
    """One try at a stage, in a private folder: runs/attempts/<key12>/<n>."""

    path: Path

    @property
    def key12(self) -> str:
        return self.path.parent.name

    @property
    def number(self) -> int:
        return int(self.path.name)

    @property
    def staging(self) -> Path:
        """What is being built; renamed to runs/stages/... when whole."""
        return self.path / "made"

    @property
    def out(self) -> Path:
        return self.staging / "out"

    @property
    def metrics(self) -> Path:
        return self.staging / "metrics.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def heartbeat(self) -> Path:
        return self.path / "heartbeat"

    @property
    def progress(self) -> Path:
        return self.path / "progress.json"

    @property
    def stop_request(self) -> Path:
        """Exists once somebody asked this attempt to stop."""
        return self.path / "stop"

    @property
    def worker(self) -> Path:
        """worker.json: identity of the supervisor that works here; made once, so that there is one."""
        return self.path / "worker.json"

    @property
    def request(self) -> dict[str, Any] | None:
        """attempt.json: what the worker is to do, and for whom."""
        return disk.read_sealed(self.path / "attempt.json", REQUEST)

    @property
    def exit(self) -> dict[str, Any] | None:
        """exit.json: how it ended; None while it runs, or when it was killed before it could say."""
        return disk.read_sealed(self.path / "exit.json", EXIT)

    def write_request(self, request: dict[str, Any]) -> None:
        disk.write_sealed(self.path / "attempt.json", request)

    def write_exit(self, **record: Any) -> None:
        """`failure` is ok or a class of `ablate.core.failures`; `message` is for a reader."""
        disk.write_sealed(self.path / "exit.json", self._exit(record))

    def create_exit(self, **record: Any) -> bool:
        """The same where it has none. -> False where it has one, also one that cannot be seen from here yet."""
        return disk.create_sealed(self.path / "exit.json", self._exit(record))

    def _exit(self, record: dict[str, Any]) -> dict[str, Any]:
        return record | {"records": listing_of(self._records())}

    def _records(self) -> list[Path]:
        """What lies beside exit.json and changes no more; a log may still get a line."""
        passing = ("exit.json", "stop")
        files = (path for path in sorted(self.path.iterdir()) if plain_files.is_file(path))
        return [path for path in files if path.name not in passing and path.name[0] != "."]
