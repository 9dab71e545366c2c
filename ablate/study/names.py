"""What rows are called: short names for the command line, labels for tables."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ablate.study.resolve import Setting
from ablate.study.schema import Pair, ReferenceRow, Student, TeacherOrStudent
from ablate.study.several_teachers import teacher_names

MAX_VALUE: Final = 48
KNOWN: Final = ("distill.temperature",)
"""Settings whose short name everybody takes for them: an axis over sampling.temperature is not called temperature."""
_ROLES = {"distill.teacher": "teacher", "distill.student": "student"}
TEACHERS: Final = "distill.teachers"
_STATES = {"baseline": "baseline", "finetuned": "fine-tuned"}


def short_paths(paths: Iterable[str]) -> dict[str, str]:
    """-> each dotted path's last part, or as many of its last parts as tell it from the others and from the known."""
    given = list(dict.fromkeys(paths))
    return {path: _short(path, [*given, *_known(path, given)]) for path in given}


def _short(path: str, whole: list[str]) -> str:
    return next(end for end in _ends(path) if _num_ending(end, whole) == 1 or end == path)


def _known(path: str, given: list[str]) -> list[str]:
    """-> the known settings of the recipe that a path is of, but for those that are axes themselves."""
    return [other for other in KNOWN if other not in given and other.partition(".")[0] == path.partition(".")[0]]


def _ends(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[-length:]) for length in range(1, len(parts) + 1)]


def _num_ending(end: str, paths: list[str]) -> int:
    return sum(path == end or path.endswith(f".{end}") for path in paths)


def cell_name(values: Mapping[str, Any], short: Mapping[str, str]) -> str:
    """-> `lr=0.0003`, `teacher=baseline,student=finetuned`; `kd` for the only cell of an ablation without axes."""
    return ",".join(f"{short[path]}={_value_name(path, value)}" for path, value in values.items()) or "kd"


def _value_name(path: str, value: Any) -> str:
    return value_text((path.endswith(TEACHERS) and teacher_names(value)) or value)


def value_text(value: Any) -> str:
    """-> a value as it stands in a name: the shortest number that reads back as it was, else a slug."""
    text = _text(value)
    if len(text) <= MAX_VALUE:
        return text
    return f"{text[:MAX_VALUE]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "+".join(map(_text, value)) or "none"
    if isinstance(value, Mapping):
        parts = [_text(inner) if key in ("name", "task") else f"{key}{_text(inner)}" for key, inner in value.items()]
        return "-".join(parts) or "none"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(value).rstrip("/").rpartition("/")[2]).strip("-") or "empty"


def cell_label(values: Mapping[str, Any], short: Mapping[str, str], pairs: Mapping[str, Pair]) -> str:
    """-> "KD, lr=0.0003", "KD, fine-tuned teacher, baseline student"."""
    return ", ".join(["KD", *(_axis_label(path, value, short, pairs) for path, value in values.items())])


def _axis_label(path: str, value: Any, short: Mapping[str, str], pairs: Mapping[str, Pair]) -> str:
    if path in _ROLES:
        return f"{_STATES[value]} {_ROLES[path]}"
    if path == "distill.pair":
        return pairs[value].label or str(value)
    if path.endswith(TEACHERS):
        return _teachers_label(value, pairs)
    return f"{short[path]}={value_text(value)}"


def _teachers_label(teachers: Any, pairs: Mapping[str, Pair]) -> str:
    """-> "teachers: fine-tuned 8B (0.7) + baseline 3B (0.3)", weights as they were said, where they differ."""
    if not isinstance(teachers, list | tuple):
        return "its pair's teacher"
    weights = [float(one.get("weight", 1)) for one in teachers]
    texts = []
    for one, weight in zip(teachers, weights, strict=True):
        pair = pairs.get(one.get("pair"))
        whose = (pair.teacher.label or pair.label or one["pair"]) if pair else "teacher"
        share = f" ({weight:g})" if len(set(weights)) > 1 else ""
        texts.append(f"{_STATES[one.get('teacher', 'finetuned')]} {whose}{share}")
    return f"teachers: {' + '.join(texts)}" if texts else "its pair's teacher"


def reference_label(row: ReferenceRow, setting: Setting) -> str:
    """-> "Baseline teacher (8B)", "Fine-tuned student (1B) using LoRA"."""
    role, state = row.split("/")
    is_teacher = role == "teacher"
    who = f"{role}{_model_label(setting.teacher if is_teacher else setting.student)}"
    if state == "baseline":
        return f"Baseline {who}"
    recipe = setting.finetune_teacher if is_teacher else setting.finetune_student
    method = ("DoRA" if recipe.lora.use_dora else "LoRA") if recipe.lora else None
    return f"Fine-tuned {who} using {method}" if method else f"Fine-tuned {who}"


def _model_label(model: TeacherOrStudent) -> str:
    """-> " (8B)", " (8B, cut to depth 0.5)", " (8B, nf4)"."""
    cut = f"cut to {model.prune.words}" if isinstance(model, Student) and model.prune else None
    words = ", ".join(filter(None, (model.label, cut, model.quantize)))
    return f" ({words})" if words else ""
