"""Names on the hub: its repositories and commits, which hub is in use, and whether it may be asked."""

import os
import re
from typing import Literal, NamedTuple

from ablate.core.errors import without_secrets

_SHA = re.compile(r"[0-9a-f]{40}")
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")


class Repo(NamedTuple):
    """A repository on the hub, at a branch, tag or commit."""

    type: Literal["model", "dataset"]
    id: str
    revision: str | None = None

    def __str__(self) -> str:
        kind = "data set" if self.type == "dataset" else self.type
        return f"{kind} {self.id}" + (f" at revision {self.revision}" if self.revision else "")

    @property
    def url(self) -> str:
        """The page for a reader."""
        return f"{endpoint()}/{'datasets/' if self.type == 'dataset' else ''}{self.id}"


def endpoint() -> str:
    """-> the hub in use, to be written and shown: without the name and password that its URL may have."""
    return without_secrets(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def is_offline() -> bool:
    """Whether the environment forbids asking the hub."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


def is_hub_id(name: str) -> bool:
    """Whether a name can be that of a repository."""
    return bool(_ID.fullmatch(name)) and ".." not in name


def is_commit(revision: str | None) -> bool:
    """Whether a revision names one commit for good."""
    return bool(revision and _SHA.fullmatch(revision))
