"""What a study's rows name, as stages that fetch it: models, data sets and files, each looked at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.core.hub import Repo
from ablate.planning.stage_pool import StagePool
from ablate.stages.fetch import FetchSettings, local_digest
from ablate.stages.prune import PruneSettings
from ablate.store.hub_lock import Pins
from ablate.store.stage import Stage
from ablate.study.data_settings import Data
from ablate.study.named_models import base_of, named
from ablate.study.resolve import Setting
from ablate.study.schema import Student, TeacherOrStudent
from ablate.study.sources import is_local, task_sources


class Fetches:
    """Made in a pool, at the revisions that are pinned.

    A repository that is not pinned gives a stage without a revision, whose attempt says why.
    """

    def __init__(self, pool: StagePool, pins: Pins) -> None:
        self._pool = pool
        self._pins = pins
        self._stages: dict[tuple[Any, ...], Stage] = {}
        self._models: dict[tuple[Any, ...], Stage] = {}
        self._questions: dict[tuple[Any, ...], dict[str, Stage]] = {}

    def model(self, ref: TeacherOrStudent) -> Stage:
        """-> what brings a model: fetches it, or cuts what is fetched."""
        prune = ref.prune if isinstance(ref, Student) else None
        fetch = self.whole(ref)
        return self._pool.make("prune", PruneSettings(cut=prune), {"model": fetch}) if prune else fetch

    def whole(self, ref: TeacherOrStudent) -> Stage:
        """-> what fetches a model; an adapter's is given its base, so that both are in the keys of what uses it."""
        if named(ref) not in self._models:
            self._models[named(ref)] = self._model(ref)
        return self._models[named(ref)]

    def _model(self, ref: TeacherOrStudent) -> Stage:
        base = base_of(ref) or self._base_on_hub(ref)
        inputs = {"base": self.whole(base)} if base else {}
        if is_local(ref.model):
            return self._local("model", ref.model, ref.trust_remote_code, inputs)
        return self._hub("model", ref.model, ref.revision, None, ref.trust_remote_code, inputs)

    def _base_on_hub(self, ref: TeacherOrStudent) -> TeacherOrStudent | None:
        """-> what an adapter on the hub is merged on, by its own word."""
        base = self._pins.bases.get(Repo("model", ref.model, ref.revision))
        return base and TeacherOrStudent(model=base.id, revision=base.revision, trust_remote_code=ref.trust_remote_code)

    def dataset(self, data: Data) -> Stage:
        if is_local(data.source):
            return self._local("dataset", data.source)
        return self._hub("dataset", data.source, data.revision, data.config)

    def questions(self, setting: Setting) -> dict[str, Stage]:
        """-> what the tasks of a row read, under the names that an evaluation knows it by."""
        asked = setting.evaluate.task_names, setting.evaluate.include_path
        if asked not in self._questions:
            self._questions[asked] = self._questions_of(setting)
        return self._questions[asked]

    def _questions_of(self, setting: Setting) -> dict[str, Stage]:
        stages = {
            f"data_{number}": self._hub("tasks", source.path, source.revision, source.config)
            for number, source in enumerate(task_sources(setting))
        }
        include = setting.evaluate.include_path
        return stages | ({"include": self._local("tasks", include)} if include else {})

    def _hub(
        self,
        repo_type: str,
        repo: str,
        revision: str | None,
        config: str | None,
        trusted: bool = False,
        inputs: Mapping[str, Stage] | None = None,
    ) -> Stage:
        sha = self._pins.revisions.get(Repo("model" if repo_type == "model" else "dataset", repo, revision), revision)
        fields = {"repo_type": repo_type, "repo": repo, "revision": sha, "config": config}
        return self._fetch(inputs or {}, source="hub", **fields, trust_remote_code=trusted)

    def _local(
        self, repo_type: str, path: str, trusted: bool = False, inputs: Mapping[str, Stage] | None = None
    ) -> Stage:
        return self._fetch(inputs or {}, source="local", repo_type=repo_type, path=path, trust_remote_code=trusted)

    def _fetch(self, inputs: Mapping[str, Stage], **fields: Any) -> Stage:
        """Each source is asked for once a plan: a large local folder takes long to digest."""
        asked = (*fields.items(), *((name, stage.key) for name, stage in inputs.items()))
        if asked not in self._stages:
            sha256 = self._digest(fields["path"]) if fields["source"] == "local" else None
            self._stages[asked] = self._pool.make("fetch", FetchSettings(**fields, sha256=sha256), inputs)
        return self._stages[asked]

    def _digest(self, path: str) -> str:
        return self._pins.digests.get(path) or local_digest(Path(path))
