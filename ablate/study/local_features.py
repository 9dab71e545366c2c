"""Whether two models' layers can be compared as a study says, by their config.json alone."""

from pathlib import Path
from typing import NamedTuple

from ablate.core import disk
from ablate.core.model_files import CONFIG
from ablate.feature_losses import FeatureLoss
from ablate.study.resolve import Setting
from ablate.study.words import Finding


def unfit_features(setting: Setting) -> Finding | None:
    """-> what models on this disk lack, with its place in the distillation; of a student that is cut nothing yet."""
    features, student = setting.distill.features, setting.student
    teacher = setting.teachers[0].model
    is_here = all(one.base is None and Path(one.model).is_absolute() for one in (teacher, student))
    if features is None or not is_here or student.prune:
        return None
    fault = feature_fault(features, Path(teacher.model), Path(student.model))
    return Finding(("features", fault[0]), f"distill.features: {fault[1]}") if fault else None


class _Shape(NamedTuple):
    depth: int
    width: int


def feature_fault(features: FeatureLoss, teacher: Path, student: Path) -> tuple[str, str] | None:
    """-> (field, what is wrong) where a layer lacks, or the widths differ without a projection.

    None also where a folder does not tell: the training looks again, before its first step.
    """
    of_teacher, of_student = _shape(teacher), _shape(student)
    if of_teacher is None or of_student is None:
        return None
    for field, ask, sizes in (
        ("layers", features.pairs, (of_teacher.depth, of_student.depth)),
        ("projection", features.is_projected, (of_teacher.width, of_student.width)),
    ):
        try:
            ask(*sizes)
        except ValueError as error:
            return field, str(error)
    return None


def _shape(folder: Path) -> _Shape | None:
    config = disk.read_json(folder / CONFIG)
    if not isinstance(config, dict):
        return None
    config = config.get("text_config", config)
    depth = config.get("num_hidden_layers", config.get("n_layer"))
    width = config.get("hidden_size", config.get("n_embd"))
    return _Shape(depth, width) if isinstance(depth, int) and isinstance(width, int) else None
