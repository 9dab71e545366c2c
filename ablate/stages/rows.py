"""rows: the training data as tokens and a loss mask, rendered for the student's tokenizer; named by content."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ablate.core import disk
from ablate.core.errors import StageError
from ablate.core.values import IDENTITY, Frozen, Json
from ablate.store.job import Job
from ablate.store.kind import KINDS, Kind
from ablate.store.sizes import RowsSizes
from ablate.store.stage import Stage
from ablate.study.data_settings import Data
from ablate.training.forward_memory import LONGEST

if TYPE_CHECKING:
    from ablate.data.tokens import TokenRows


class RowsSettings(Frozen):
    """What decides the token rows, apart from the data and the tokenizer."""

    data: Annotated[Data, IDENTITY]


class Rows(Kind[RowsSettings]):
    """Reads, renders, tokenises, cuts and counts; the last `holdout` rows are kept apart."""

    Settings = RowsSettings
    is_light = True
    is_named_by_content = True

    def run(self, job: Job) -> None:
        from ablate.data import prepare, tokens
        from ablate.data.tokenizers import load_tokenizer
        from ablate.stages.inputs import fetched, fetched_model

        student = fetched_model(job.inputs["student"])
        tokenizer = load_tokenizer(student.tokenizer, student.weights.trust_remote_code)
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
        job.notes["rows"] = list(prepared.notes)

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

    def label(self, stage: Stage, name: str) -> str:
        return f"rows {Path(self.settings_of(stage).data.source).name}"


ROWS = Rows()
KINDS.register("rows")(ROWS)


def longest_row(rows: Stage, sizes: RowsSizes) -> int:
    """-> at most so many tokens in a row, as far as the study says."""
    return min(sizes.tokens, ROWS.settings_of(rows).data.max_length or LONGEST)
