"""Where a task's data lie: whatever place a task file names, however it is spelled, held inside its key."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ablate.core.errors import AblateError
from ablate.core.local_files import is_counted
from ablate.study.catalog.card import HIDDEN_CARD, files_in_card
from ablate.study.catalog.taskfile import Python

READERS = frozenset({"arrow", "csv", "json", "parquet", "text", "webdataset", "xml"})
"""Of `datasets`, in the place of a data set's name: what they read are files, and nothing else."""
OTHER_READERS = frozenset({
    "audiofolder", "cache", "conll", "eval", "fasta", "fastq", "genbank", "generator", "harbor", "hdf5", "iceberg",
    "imagefolder", "lance", "meshfolder", "mmcif", "niftifolder", "pandas", "pdb", "pdffolder", "spark", "sql",
    "tsfile", "videofolder", "vortex",
})  # fmt: skip
"""Those that run code, ask a server or read what is no text."""
FILES = ("data_files", "data_dir")
SETTINGS = frozenset({
    "batch_size", "block_size", "chunksize", "column_names", "columns", "comment", "delimiter", "dtype", "encoding",
    "encoding_errors", "escapechar", "features", "field", "filters", "header", "index_col", "keep_default_na",
    "keep_in_memory", "keep_linebreaks", "lineterminator", "na_values", "name", "names", "newlines_in_values", "nrows",
    "num_proc", "quotechar", "quoting", "revision", "sample_by", "sep", "skiprows", "split", "streaming",
    "trust_remote_code", "usecols", "verification_mode",
})  # fmt: skip
"""Of `dataset_kwargs`, beside FILES: none of them can name a place or hold a secret."""
_HUB_FILE = re.compile(r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?/(?P<file>.+)", re.DOTALL)
_HUB_PAGE = re.compile(
    r"https://(www\.)?(huggingface\.co|hf\.co)/datasets/(?P<repo>[\w.-]+/[\w.-]+)"
    r"/(resolve|raw|blob)/(?P<revision>[^/]+)/(?P<file>[^?#]+)(\?download=true)?"
)
_HUB_SET = re.compile(r"(hf://datasets/)?(?P<repo>[\w-][\w.-]*(/[\w-][\w.-]*)?)(?P<at>@(?P<revision>[^/]+))?")
_FILE_URL = re.compile(r"file:(//(localhost)?(?=/))?", re.IGNORECASE)
_MAGIC = re.compile(r"[*?[]")


class Outside(AblateError):
    """A task file names what would be in no key."""


class Resolved(str):
    """A place that was looked at: inside, and there."""

    __slots__ = ()


class HubPlace(NamedTuple):
    """A data set on the hub, or a file of one."""

    repo: str
    revision: str | None
    file: str | None = None

    @property
    def name(self) -> str:
        """By which a snapshot of it is known to a task."""
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


def hub_file(spelt: str) -> HubPlace | None:
    """-> the file of a data set on the hub that a name in `data_files` means: `hf://datasets/...` or its page."""
    match = _HUB_FILE.fullmatch(spelt) or _HUB_PAGE.fullmatch(spelt)
    revision = match and (None if match["revision"] == "main" else match["revision"])
    return HubPlace(match["repo"], revision, match["file"]) if match else None


def hub_set(spelt: str, revision: object = None) -> HubPlace | None:
    """-> the data set on the hub that a `dataset_path` means: a name, or hf://datasets/name@revision."""
    match = _HUB_SET.fullmatch(spelt)
    if match is None or (match["at"] and not match[1]):
        return None
    named = match["revision"] or (str(revision) if revision else None)
    return HubPlace(match["repo"], None if named == "main" else named)


def why_outside(path: Path, root: Path) -> str | None:
    """-> what keeps a file or folder from being in the key of a folder of task files; links are followed."""
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(root))
    if real != home and home not in real.parents:
        return f"lies outside {root}: put it inside, so that the results are named by its content too"
    if not is_counted(real.relative_to(home)):
        return "is hidden, and what is hidden counts in no key: give it another name"
    return None


@dataclass(frozen=True)
class Home:
    """Where the names of a task file begin."""

    folder: Path | None
    """Of the task's own file; None for lm-eval's tasks, which name nothing on this disk."""
    root: Path | None
    """The folder of task files of one's own."""
    snapshots: Mapping[str, Path] | None = None
    """`HubPlace.name` -> the folder of what is fetched; None: nothing is yet, and every data set will be."""

    def localized(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """-> a task's settings, or a group's with those of its members inside, that name places on this disk alone.

        Raises Outside.
        """
        local = dict(config)
        if isinstance(members := config.get("task"), list):
            local["task"] = [self.localized(one) if isinstance(one, dict) else one for one in members]
        path, kwargs = config.get("dataset_path"), config.get("dataset_kwargs")
        custom = config.get("custom_dataset")
        if not path or callable(custom) or isinstance(custom, Python):  # lm-eval takes nothing else for one
            return local
        if not isinstance(path, str):
            raise Outside(f"dataset_path: the name of a data set, or of a folder, is expected, got {path!r}")
        settings = _checked_settings(kwargs)
        local["dataset_path"] = self._data_set(path, settings.get("revision"))
        if kwargs is not None:
            local["dataset_kwargs"] = self._reader_settings(settings) if path in READERS else _folder_settings(settings)
        elif path in READERS:
            self._reader_settings({})
        return local

    def local_set(self, path: str) -> Path | None:
        """-> the folder that a `dataset_path` means, beside the task's file or below the folder of task files."""
        return None if path in READERS else next(filter(os.path.exists, self._places(path)), None)

    def _data_set(self, path: str, revision: object) -> str:
        if isinstance(path, Resolved) or path in READERS:
            return path
        if path in OTHER_READERS:
            possible = ", ".join(sorted(READERS))
            raise Outside(f"dataset_path: {path} is no reader that a task may use; possible: {possible}, a data set")
        if local := self.local_set(path):
            _check_card(local)
            return self._inside(local, path)
        place = hub_set(path, revision)
        if place is None:
            raise Outside(f"dataset_path: {path} is neither a data set on the hub nor a folder {self._where}")
        return path if self.snapshots is None else Resolved(self._snapshot(place))

    def _reader_settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """-> with absolute names; a pattern begins where its first match is."""
        if not any(settings.get(name) for name in FILES):
            raise Outside("dataset_kwargs: no data_files, so that whatever lies in the current folder would be read")
        local, places = dict(settings), self
        if data_dir := settings.get("data_dir"):
            local["data_dir"] = self._folder(data_dir)
            places = Home(Path(local["data_dir"]), self.root, self.snapshots)
        if "data_files" in settings:
            local["data_files"] = _each(settings["data_files"], places._file)
        return local

    def _folder(self, spelt: object) -> str:
        if not isinstance(spelt, str):
            raise Outside(f"data_dir: the name of a folder is expected, got {spelt!r}")
        path = next(filter(os.path.isdir, self._places(_without_scheme(spelt))), None)
        if path is None:
            raise Outside(f"data_dir: there is no folder {spelt} {self._where}")
        return self._inside(path, spelt)

    def _file(self, spelt: str) -> str:
        if isinstance(spelt, Resolved):
            return spelt
        if place := hub_file(spelt):
            return self._hub_file(place, spelt)
        name = _without_scheme(spelt)
        for path in self._places(name):
            if os.path.isdir(path):  # noqa: PTH112 (pathlib's raises for a name that is too long)
                raise Outside(f"data_files: {spelt} is a folder: name its files, as in {spelt.rstrip('/')}/*")
            if os.path.exists(path):  # noqa: PTH110
                return Resolved(_escaped(self._inside(path, spelt)))
        return self._pattern(name) if _MAGIC.search(name) else self._missing(spelt)

    def _pattern(self, spelt: str) -> str:
        before = list(_parts_before_magic(spelt))
        rest = str(Path(*Path(spelt).parts[len(before) :]))
        if ".." in Path(rest).parts:
            raise Outside(f"data_files: {spelt} goes back ('..') after a wildcard: it might lie outside of its folder")
        for path in self._places(str(Path(*before)) if before else "."):
            begin = self._inside(path, spelt)  # before anything is searched: it might be all of this disk
            matches = _matches(path, rest)
            for match in matches:
                self._inside(match, str(match))
            if any(match.is_file() for match in matches):
                return Resolved(f"{_escaped(begin)}/{rest}")
        return self._missing(spelt)

    def _missing(self, spelt: str) -> str:
        raise Outside(f"data_files: {spelt} is not there (looked {self._where})")

    def _hub_file(self, place: HubPlace, spelt: str) -> str:
        if ".." in Path(place.file or "").parts or "::" in spelt:
            raise Outside(f"data_files: {spelt} leads out of its data set")
        return spelt if self.snapshots is None else Resolved(f"{_escaped(str(self._snapshot(place)))}/{place.file}")

    def _snapshot(self, place: HubPlace) -> Path:
        assert self.snapshots is not None
        if place.name not in self.snapshots:
            known = ", ".join(self.snapshots) or "none"
            raise Outside(f"the data set {place.name} was not fetched for this evaluation (those that were: {known})")
        return self.snapshots[place.name]

    def _places(self, name: str) -> list[Path]:
        """-> where a name may lie: beside the task's file, below the folder of task files."""
        if "\0" in name:
            raise Outside(f"{name!r} is no name of a file")
        bases = dict.fromkeys(base for base in (self.folder, self.root) if base)
        return [Path(os.path.abspath(base / name)) for base in bases]  # noqa: PTH100 (links are followed later)

    def _inside(self, path: Path, spelt: str) -> str:
        """-> the path, what leads to it resolved."""
        if self.root is None or (why := why_outside(path, self.root)):
            raise Outside(f"{spelt} {why if self.root else 'is on this disk, and the task is none of your own'}")
        return Resolved(path.parent.resolve() / path.name)

    @property
    def _where(self) -> str:
        bases = dict.fromkeys(str(base) for base in (self.folder, self.root) if base)
        return f"beside the task's file ({', '.join(bases)})" if bases else "that was fetched"


def require_read(files: Iterator[str], home: Home) -> None:
    """For what `datasets` is about to read. Raises Outside for a file that is in no key."""
    snapshots = (home.snapshots or {}).values()
    for file in files:
        if "://" in file or "::" in file:
            raise Outside(f"{file} is on no disk")
        if any(_is_of_snapshot(Path(file), snapshot) for snapshot in snapshots):
            continue
        if home.root is None or (why := why_outside(Path(file), home.root)):
            raise Outside(f"{file} {why if home.root else 'is of no data set that was fetched'}")


def _is_of_snapshot(file: Path, snapshot: Path) -> bool:
    """The hub's cache has a folder of names that lead to contents, in another folder of the same data set."""
    parent, home = Path(os.path.realpath(file.parent)), Path(os.path.realpath(snapshot))
    contents = home.parents[1] / "blobs" if home.parent.name == "snapshots" else home
    return (parent == home or home in parent.parents) and bool(
        {home, contents} & {*Path(os.path.realpath(file)).parents}
    )


def _checked_settings(kwargs: object) -> Mapping[str, Any]:
    if kwargs is None:
        return {}
    if not isinstance(kwargs, Mapping):
        raise Outside(f"dataset_kwargs: names with values are expected, got {kwargs!r}")
    for name, value in kwargs.items():
        if name not in SETTINGS and name not in FILES and value is not None:
            possible = ", ".join(sorted({*SETTINGS, *FILES}))
            raise Outside(f"dataset_kwargs: {name} is nothing that a task may say; possible: {possible}")
    return kwargs


def _check_card(folder: Path) -> None:
    """Raises Outside where the card of a folder of rows leads out of it."""
    if (folder / HIDDEN_CARD).exists():
        raise Outside(f"{folder / HIDDEN_CARD} says what is read, and what is hidden counts in no key: use README.md")
    for spelt in files_in_card(folder):
        try:
            _relative(spelt)
        except Outside as error:
            raise Outside(f"{folder / 'README.md'}: {error}") from error


def _folder_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of a data set, whose files are named relative to it."""
    for name in FILES:
        _each(settings.get(name), _relative)
    return {name: value for name, value in settings.items() if name != "revision"}


def _relative(spelt: str) -> str:
    if (
        "://" in spelt
        or "::" in spelt
        or Path(spelt).is_absolute()
        or ".." in Path(spelt).parts
        or spelt.startswith("~")
    ):
        raise Outside(f"data_files: {spelt} leads out of its data set")
    return spelt


def _each(value: Any, change: Any, depth: int = 0) -> Any:
    """-> names alone, in lists or by split, each changed."""
    if depth > 8:
        raise Outside("data_files: lists in lists without an end")
    if isinstance(value, Mapping):
        return {key: _each(item, change, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_each(item, change, depth + 1) for item in value]
    if value is None or isinstance(value, str):
        return value if value is None else change(value)
    raise Outside(f"data_files: names of files are expected, got {value!r}")


def _without_scheme(spelt: str) -> str:
    """-> a name on this disk. Raises Outside for what is elsewhere."""
    name = _FILE_URL.sub("", spelt, count=1)
    if "://" in name or "::" in name:
        raise Outside(
            f"{spelt} is no file of the task's own folder, and nothing that is fetched and pinned: only files inside"
            " include_path and hf://datasets/... are read"
        )
    return name


def _parts_before_magic(spelt: str) -> Iterator[str]:
    for part in Path(spelt).parts:
        if _MAGIC.search(part):
            return
        yield part


def _matches(folder: Path, pattern: str) -> list[Path]:
    """-> sorted, as `datasets` finds them: no folder that is a link is searched through, nothing hidden but by name."""
    is_hidden_meant = any(part.startswith(".") for part in Path(pattern).parts)
    try:
        matches = sorted(folder.glob(pattern))
    except (OSError, ValueError) as error:
        raise Outside(f"data_files: {pattern} cannot be searched for in {folder}: {error}") from error
    return [match for match in matches if is_hidden_meant or is_counted(match.relative_to(folder))]


def _escaped(path: str) -> str:
    """-> a name that `datasets` does not take for a pattern."""
    return re.sub(r"([*?[])", r"[\1]", path)
