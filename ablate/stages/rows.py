"""rows: the training data as tokens and a loss mask, rendered for the student's tokenizer; named by content."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from ablate.core import disk
from ablate.core.errors import StageError
from ablate.core.values import IDENTITY, Frozen, Json
from ablate.store.job import KINDS, Job
from ablate.study.schema import Data

if TYPE_CHECKING:
    from ablate.data.tokens import TokenRows


class RowsSettings(Frozen):
    """What decides the token rows, apart from the data and the tokenizer."""

    data: Annotated[Data, IDENTITY]


class Rows:
    """Reads, renders, tokenises, cuts and counts; the last `holdout` rows are kept apart."""

    version: ClassVar[int] = 1
    Settings: ClassVar[type[Frozen]] = RowsSettings
    is_online: ClassVar[bool] = False
    is_light: ClassVar[bool] = True
    is_verdict: ClassVar[bool] = False

    def run(self, job: Job) -> None:
        from ablate.data import prepare, tokens
        from ablate.stages.inputs import fetched
        from ablate.training.models import load_tokenizer

        student = fetched(job.inputs["student"])
        tokenizer = load_tokenizer(student.path, student.trust_remote_code)
        prepared = prepare.prepare(
            fetched(job.inputs["data"]).path,
            job.settings.data,
            tokenizer,
            lambda done, total: job.progress(done, total, "row"),
        )
        tokens.save(prepared.train, job.out / "train.safetensors")
        tokens.save(prepared.holdout, job.out / "holdout.safetensors")
        disk.write_json(job.out / "summary.json", prepared.summary)
        job.content = str(prepared.summary["content"])
        job.notes["rows"] = prepared.notes

    def check(self, folder: Path) -> None:
        summary: dict[str, Json] | None = disk.read_json(folder / "out" / "summary.json")
        if summary is None:
            raise StageError(f"{folder}: no summary.json")
        for part in ("train", "holdout"):
            self._check_part(folder, part, summary)

    def _check_part(self, folder: Path, part: str, summary: dict[str, Json]) -> None:
        from ablate.data.tokens import load

        rows: TokenRows = load(folder / "out" / f"{part}.safetensors")
        if rows.counts._asdict() != summary[part]:
            raise StageError(f"{folder}: {part}.safetensors has {rows.counts}, summary.json says {summary[part]}")
        if len(rows.tokens) and not 0 <= rows.tokens.min() <= rows.tokens.max() < int(str(summary["vocabulary"])):
            raise StageError(f"{folder}: {part}.safetensors has token ids outside the vocabulary")

    def is_present(self, folder: Path) -> bool:
        return True


KINDS.register("rows")(Rows())
