"""Pins and fetch stages in a process of its own, whose environment says which hub; what came out is printed as JSON."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from support.served_hub import ServedHub  # no import: the process of its own keeps the environment it was given


def pinned(hub: "ServedHub", lock: Path, *repos: list[str], **env: str) -> dict[str, Any]:
    """-> revisions and problems by id, notes, and whether huggingface_hub was imported."""
    return _asked(hub.env(**env), "pin", {"lock": str(lock), "repos": repos})


def fetched(
    hub: "ServedHub", folder: Path, *, before: str = "", env: dict[str, str] | None = None, **settings: Any
) -> Any:
    """-> the manifest, or {failure, message}. `before` is Python to be run first; a revision not given is asked."""
    order = {"folder": str(folder), "settings": {"source": "hub", "repo_type": "model"} | settings, "before": before}
    return _asked(hub.env(**env or {}), "fetch", order)


def _asked(env: dict[str, str], verb: str, order: dict[str, Any]) -> Any:
    done = subprocess.run(
        [sys.executable, __file__, verb, json.dumps(order)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _pin(order: dict[str, Any]) -> Any:
    from ablate.core.hub import Repo
    from ablate.store.hub_lock import pin

    pins = pin([Repo(*repo) for repo in order["repos"]], Path(order["lock"]))
    return {
        "revisions": {repo.id: sha for repo, sha in pins.revisions.items()},
        "bases": {repo.id: base.id for repo, base in pins.bases.items()},
        "problems": {repo.id: why for repo, why in pins.problems.items()},
        "notes": pins.notes,
        "is_imported": "huggingface_hub" in sys.modules,
    }


def _fetch(order: dict[str, Any]) -> Any:
    from ablate.core.errors import StageError
    from ablate.core.hub import Repo
    from ablate.stages.fetch import Fetch, FetchSettings
    from ablate.store.checkpoints import Checkpoints
    from ablate.store.hub_lock import resolve
    from ablate.store.job import Job, MetricsLog

    exec(order["before"], {})
    folder, settings = Path(order["folder"]), order["settings"]
    try:
        if "revision" not in settings:
            kind = "model" if settings["repo_type"] == "model" else "dataset"
            settings["revision"] = resolve(Repo(kind, settings["repo"]))
        (folder / "out").mkdir(parents=True, exist_ok=True)
        job = Job(
            FetchSettings(**settings), {}, folder / "out", MetricsLog(folder / "metrics.jsonl"), Checkpoints(folder)
        )
        job.progress_path = folder / "progress.json"
        Fetch().run(job)
        Fetch().check(folder)
    except StageError as error:
        return {"failure": error.failure, "message": str(error)}
    return json.loads((folder / "out" / "manifest.json").read_text())


if __name__ == "__main__":
    print(json.dumps({"pin": _pin, "fetch": _fetch}[sys.argv[1]](json.loads(sys.argv[2]))))
