"""Which revision of a hub repository a study uses: asked once, then kept in a lock file."""

import ipaddress
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from ablate.core import disk, plain_files
from ablate.core.errors import AblateError, StageError, without_secrets
from ablate.core.hub import Repo, endpoint, is_commit, is_hub_id, is_offline
from ablate.core.model_files import ADAPTER_CONFIG, ModelFiles
from ablate.store import hub_download
from ablate.store.disk_speed import Speeds
from ablate.store.hub_errors import explain_hub_error, in_short

TIMEOUT_S = 10.0
BRIEF_S = 0.8
"""For a hub without whose answer there is something to show."""
WAITS_S = (0.5, 1.0, 2.0)
"""Between the tries at a hub that does not answer."""
_HEAD = (
    "# The revisions that the study beside this file uses, asked from the hub once. Commit it: whoever runs the study\n"
    "# gets the same models and data. Delete a line to have it asked again.\n"
)


class Pins(NamedTuple):
    """The revisions that a study uses: of its lock file and the hub, or as a run recorded them."""

    revisions: Mapping[Repo, str]
    """-> commit sha."""
    problems: Mapping[Repo, str]
    """What could not be pinned -> why, for a reader."""
    notes: tuple[str, ...]
    """What a reader should know."""
    digests: Mapping[str, str] = MappingProxyType({})
    """Local path -> the digest that it counts with; what is not here is digested when it is planned."""
    bases: Mapping[Repo, Repo] = MappingProxyType({})
    """Of a repository that holds an adapter alone -> the one that this is merged on, which is pinned as well."""
    contents: Mapping[str, str] = MappingProxyType({})
    """Key of a rows stage -> the digest of what it made, where the stage itself is no longer there to say so."""
    num_rows: Mapping[str, int] = MappingProxyType({})
    """Likewise how many rows it made to be trained on, by which is decided how many are answered."""
    speeds: Speeds | None = None
    """By which large caches are weighed; None until models and rows are here."""


class Commit(NamedTuple):
    """What a hub says of a repository at a revision."""

    sha: str
    base: Repo | None
    """Of an adapter alone: what it is merged on."""


@dataclass(frozen=True)
class _Entry:
    """One line of a lock file."""

    repo: Repo
    sha: str
    endpoint: str
    base: Repo | None = None
    """Of an adapter alone."""

    def line(self) -> str:
        fields = {"type": self.repo.type, "repo": self.repo.id, "revision": self.repo.revision or "main"}
        fields |= {"sha": self.sha, "endpoint": self.endpoint}
        if self.base:
            fields |= {"base": self.base.id} | ({"base_revision": self.base.revision} if self.base.revision else {})
        text: str = yaml.safe_dump([fields], default_flow_style=None, sort_keys=False, width=10_000)
        return text


def pin(
    repos: Iterable[Repo], lock_path: Path, *, is_online: bool = True, instead: Mapping[Repo, str] | None = None
) -> Pins:
    """-> the commit of each repository: the lock file's, else the hub's, which is then written to the lock file.

    A repository that cannot be pinned is a problem of the stages that need it, not of the study. An entry that came
    from another endpoint counts only where the hub is not asked (`is_online` is False, or HF_HUB_OFFLINE). With
    `instead`, a hub that has no answer within BRIEF_S is not waited for: such an entry counts, else `instead`.
    Raises AblateError when the lock file cannot be read.
    """
    wanted = list(dict.fromkeys(repos))
    pins = _pin(wanted, lock_path, instead, is_online=is_online)
    bases = [base for base in pins.bases.values() if base not in wanted]
    if not bases:
        return pins
    again = pin([*wanted, *bases], lock_path, is_online=is_online, instead=instead)
    return again._replace(notes=(*pins.notes, *again.notes))


def _pin(wanted: list[Repo], lock_path: Path, instead: Mapping[Repo, str] | None, *, is_online: bool) -> Pins:
    lock = _read(lock_path)
    locked = {repo: sha for repo in wanted if (sha := _known(repo, lock, is_asking=is_online and not is_offline()))}
    rest = [repo for repo in wanted if repo not in locked]
    bases = {entry.repo: entry.base for entry in lock if entry.base}
    bases = {repo: base for repo in wanted for other, base in bases.items() if _is_same(repo, other)}
    if not is_online:
        return Pins(locked, {repo: f"{repo} is not pinned yet" for repo in rest}, (), bases=bases)
    spare = {} if instead is None else _spare(rest, lock, instead)
    asked, problems = _ask(rest, spare)
    notes = (*_other_endpoints(rest, lock, lock_path), *_write(lock_path, _new(asked)))
    revisions = locked | spare | {repo: commit.sha for repo, commit in asked.items()}
    bases |= {repo: commit.base for repo, commit in asked.items() if commit.base}
    return Pins(revisions, {repo: why for repo, why in problems.items() if repo not in spare}, notes, bases=bases)


def _spare(repos: Iterable[Repo], lock: list["_Entry"], instead: Mapping[Repo, str]) -> dict[Repo, str]:
    """-> what to use of what the hub does not answer for."""
    revisions = {repo: _known(repo, lock, is_asking=False) or instead.get(repo) for repo in repos}
    return {repo: sha for repo, sha in revisions.items() if sha}


def _ask(repos: Iterable[Repo], spare: Mapping[Repo, str]) -> tuple[dict[Repo, Commit], dict[Repo, str]]:
    """-> commits, and what went wrong.

    A hub that did not answer is tried once more for each, not again and again, and not at all for what has a `spare`.
    """
    commits: dict[Repo, Commit] = {}
    problems: dict[Repo, str] = {}
    is_down = False
    for repo in repos:
        if is_down and repo in spare:
            continue
        try:
            commits[repo] = _briefly(repo) if repo in spare else look_up(repo, waits_s=() if is_down else WAITS_S)
        except StageError as error:
            problems[repo] = str(error)
            is_down = is_down or error.failure == "network"
    return commits, problems


def _briefly(repo: Repo) -> Commit:
    """`look_up`, tried once and briefly: a name server that is silent obeys no time-out, hence the thread."""
    import huggingface_hub  # noqa: F401 (its import is not to count as the hub's time)

    answers: queue.SimpleQueue[Commit | StageError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(look_up(repo, waits_s=(), timeout_s=BRIEF_S))
        except StageError as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=BRIEF_S)
    except queue.Empty:
        answer = StageError(f"{endpoint()} does not answer for {repo} within {BRIEF_S:g} s", "network")
    if isinstance(answer, StageError):
        raise answer
    return answer


def resolve(repo: Repo) -> str:
    """-> the commit that a repository's revision names now, asked from the hub. Raises StageError, classed."""
    return look_up(repo).sha


def look_up(repo: Repo, *, waits_s: tuple[float, ...] = WAITS_S, timeout_s: float = TIMEOUT_S) -> Commit:
    """-> the commit that a repository's revision names now, and the base of an adapter, asked from the hub.

    Raises StageError, classed.
    """
    from huggingface_hub import HfApi

    for wait_s in (*waits_s, None):
        try:
            info = HfApi().repo_info(repo.id, repo_type=repo.type, revision=repo.revision, timeout=timeout_s)
            return Commit(str(info.sha), _base(repo, info))
        except Exception as error:  # of many libraries; each is explained, none is dropped
            explained = explain_hub_error(error, repo)
            if wait_s is None or explained.failure != "network" or is_offline():
                raise explained from error
            time.sleep(wait_s)
    raise AssertionError


def _base(repo: Repo, info: Any) -> Repo | None:
    """-> what the adapter is merged on that a repository holds alone, by its own adapter_config.json."""
    at_commit = repo._replace(revision=str(info.sha))
    names = frozenset(name for one in info.siblings or () if "/" not in (name := str(one.rfilename)))
    files = ModelFiles(names, partial(hub_download.text_of, at_commit))
    if repo.type != "model" or not files.is_adapter:
        return None
    config = files.json(ADAPTER_CONFIG)
    if not isinstance(config, dict):
        return None
    base, revision = (config.get(name) for name in ("base_model_name_or_path", "revision"))
    return Repo("model", base, revision) if isinstance(base, str) and is_hub_id(base) and base != repo.id else None


# the lock file


def _known(repo: Repo, lock: list[_Entry], *, is_asking: bool) -> str | None:
    if is_commit(repo.revision):
        return repo.revision
    entries = [entry for entry in lock if _is_same(entry.repo, repo)]
    here = [entry.sha for entry in entries if entry.endpoint == endpoint()]
    elsewhere = [] if is_asking else [entry.sha for entry in entries]
    return next(iter(here + elsewhere), None)


def _is_same(one: Repo, other: Repo) -> bool:
    return (one.type, one.id, one.revision or "main") == (other.type, other.id, other.revision or "main")


def _other_endpoints(repos: list[Repo], lock: list[_Entry], path: Path) -> Iterator[str]:
    others = [entry.endpoint for entry in lock if any(_is_same(entry.repo, repo) for repo in repos)]
    for other in dict.fromkeys(others):
        kept = f"{others.count(other)} of the repositories for {other}"
        yield f"{path.name} pins {kept}, not for {endpoint()}, the hub in use: asked anew"


def _new(commits: Mapping[Repo, Commit]) -> list[_Entry]:
    return [_Entry(repo, commit.sha, endpoint(), commit.base) for repo, commit in commits.items()]


def _read(path: Path) -> list[_Entry]:
    try:
        lines: list[dict[str, Any]] = yaml.safe_load(plain_files.read_bytes(path, follows=True)) or []
        return [_entry(one) for one in lines]
    except FileNotFoundError as error:
        if isinstance(error, plain_files.NoPlainFile):
            raise AblateError(f"{path}: {error.strerror}: move it, and every revision is asked again") from error
        return []
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise AblateError(
            f"{path}: cannot be read as a lock file ({in_short(error)}): restore it, or delete it to have every"
            " revision asked again"
        ) from error


def _entry(line: Mapping[str, Any]) -> _Entry:
    repo, base = Repo(line["type"], line["repo"], line["revision"]), line.get("base")
    of_adapter = Repo("model", base, line.get("base_revision")) if base else None
    return _Entry(repo, line["sha"], without_secrets(line["endpoint"]), of_adapter)


def _write(path: Path, new: list[_Entry]) -> Iterator[str]:
    if not new:
        return
    kept = [entry for entry in _read(path) if not any(_is_replaced(entry, one) for one in new)]
    entries = sorted([*kept, *new], key=_Entry.line)
    try:
        disk.write(path, _HEAD + "".join(dict.fromkeys(entry.line() for entry in entries)))
    except OSError as error:
        yield f"{path} cannot be written ({error.strerror}): another run may get other revisions"


def _is_replaced(entry: _Entry, by: _Entry) -> bool:
    """Whether a line is of an earlier start of the same hub: one on this machine has another port each time."""
    return _is_same(entry.repo, by.repo) and _is_passing(entry.endpoint) and _is_passing(by.endpoint)


def _is_passing(endpoint: str) -> bool:
    url = urlsplit(endpoint)
    try:
        is_here = url.hostname == "localhost" or ipaddress.ip_address(url.hostname or "").is_loopback
        return is_here and url.port is not None
    except ValueError:  # a name, or no port that there can be
        return False
