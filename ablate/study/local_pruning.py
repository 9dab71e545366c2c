"""Whether a student that lies on this machine can be cut as a study says, by its config.json alone."""

from collections.abc import Iterator
from pathlib import Path

from ablate.core import disk
from ablate.core.model_files import CONFIG
from ablate.study.named_models import with_bases
from ablate.study.pruning import Prune, pruning_problems
from ablate.study.schema import Student


def pruning_findings(student: Student, prune: Prune) -> Iterator[tuple[tuple[str, ...], str]]:
    """-> (field below prune, what is wrong). Of a model on the hub nothing: its prune stage tells, before any training.

    Python that a model brings is not read, so it is refused.
    """
    if student.trust_remote_code:
        yield (), "a model that brings Python of its own (trust_remote_code) cannot be cut: its parts are not known"
        return
    weights = Path(with_bases(student)[-1].model)
    config = disk.read_json(weights / CONFIG) if weights.is_absolute() else None
    if isinstance(config, dict):
        yield from pruning_problems(prune, config)
