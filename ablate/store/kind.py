"""What a kind of stage is: how its work is done and looked at, what it costs, and in which words it is spoken of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar

from ablate.core.registry import Registry
from ablate.core.values import Cards, Frozen
from ablate.store.job import Job
from ablate.store.memory import Held
from ablate.store.stage import Stage
from ablate.store.store import Store

MANY = 1 << 10
"""Cards of a machine."""


class Cost(NamedTuple):
    """An estimate; None where the model or the rows are not fetched yet, or where the kind does no such work."""

    tokens: int | None = None
    flops: float | None = None
    disk_bytes: int | None = None
    held: Held | None = None


class Words(NamedTuple):
    """How reports speak of a kind's stages."""

    order: int
    """Of columns and lines, from what a study starts with to its scores."""
    heading: str
    """Of the column in the picture of a study's stages: what a model is after one."""
    noun: str
    """One of them, to be counted in a sentence."""
    work: str | None = None
    """All of them, as a line in the table of device time; None for work that takes no device."""
    is_rare: bool = False
    """Few studies have one: it has a column only where there is one, and its colour comes after the others'."""


S = TypeVar("S", bound=Frozen)


class Kind(Protocol[S]):
    """A kind of stage: a class in a module of `ablate.stages`, registered in `KINDS`, and a golden key.

    Inherit for the defaults. A kind that a study can ask for wants beside its file a field in `study.schema`, for what
    may be said of it, and a line in `planning.builder`, for what it starts from.
    """

    Settings: type[S]
    version: ClassVar[int] = 1
    """Raised when equal settings and inputs would give another result."""
    is_online: ClassVar[bool] = False
    """May use the network (fetch alone)."""
    is_light: ClassVar[bool] = False
    """Runs before the rest of the study is planned and needs no GPU (fetch, rows)."""
    is_work: ClassVar[bool] = False
    """What a person counts as work: trainings and evaluations."""
    is_verdict: ClassVar[bool] = False
    """Says what a model is worth (evaluate): of a training that diverged, that it did. Others are blocked by one."""
    spread: ClassVar[Literal["weights", "layers"] | None] = None
    """How several cards share a model that is larger than one: `weights`, each layer's in parts (a training, by FSDP2);
    `layers`, whole ones on card after card (what a model is asked). None: they do not."""
    is_named_by_content: ClassVar[bool] = False
    """What uses a stage names it by the digest of what it made (rows), and is provisional until it is made."""
    words: ClassVar[Words | None] = None
    """None: reports do not speak of it."""

    def run(self, job: Job) -> None:
        """Does the work. Raises StageError (final or classed), Diverged, Interrupted."""

    def check(self, folder: Path) -> None:
        """Postcondition, on the finished folder before it is committed. Raises StageError when something lacks."""

    def glance(self, folder: Path) -> None:
        """What contradicts itself in a committed folder whose every digest fits, told without loading what it holds.

        `check` has looked at all of it before. Raises StageError when something lacks.
        """
        return

    def is_present(self, folder: Path) -> bool:
        """Whether what the committed folder refers to outside runs/ is still there."""
        return True

    def cards(self, settings: S) -> Cards:
        """-> the cards that a study gives a stage, whose processes share its rows; 1 where they cannot be shared."""
        return 1

    def most_cards(self, settings: S) -> int:
        """-> among how many cards there is something to share."""
        return MANY

    def label(self, stage: Stage, name: str) -> str:
        """What a stage is, for a reader; `name`: what the plan calls the model that it makes or asks."""
        return f"{stage.kind} {name}"

    def cost(self, stage: Stage, store: Store, aids: Mapping[str, Stage]) -> Cost:
        """-> what a stage takes, from what its inputs hold; `aids`: those it has or, where it is done, had."""
        return Cost()

    def settings_of(self, stage: Stage) -> S:
        """-> the settings of a stage of this kind."""
        assert isinstance(stage.settings, self.Settings), f"{stage.folder} is of another kind"
        return stage.settings


KINDS: Registry[Kind[Any]] = Registry("stage kind", "ablate.stages")


def words_by_kind() -> dict[str, Words]:
    """-> name of a kind -> its words, of those that reports speak of, in the order in which they do."""
    words = {name: words for name in KINDS if (words := KINDS[name].words)}
    return dict(sorted(words.items(), key=lambda item: item[1].order))
