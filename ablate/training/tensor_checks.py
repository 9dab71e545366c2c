"""Whether a model's tensors are those of its files: each from there, and each there used, by name, shape and sort."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ablate.core.errors import StageError
from ablate.core.model_files import files_of
from ablate.core.tensor_headers import FLOATS, BadTensorFileError, StoredTensor, stored_tensors
from ablate.training.misfit_reasons import likely_reason

OLD_BUFFERS = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$", r"(^|\.)attn\.masked_bias$")
"""Computed by every model of today, and stored by models of earlier years."""


class Misfits(NamedTuple):
    """What of a model and of its files does not belong together."""

    missing: tuple[str, ...]
    """Of the model, and in no file."""
    unused: tuple[str, ...]
    """In a file, and not of the model."""
    misshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    """Name -> shapes in the file and in the model."""
    doubled: tuple[tuple[str, str], ...] = ()
    """Two tensors of the files that are one of the model."""
    missorted: Mapping[str, str] = {}
    """Name -> dtype in the file, where the model has numbers of another sort."""
    misnumbered: tuple[str, ...] = ()
    """Of a list that becomes one tensor of the model: some numbers are left out: it would be put in another order."""
    untied: tuple[str, ...] = ()
    """Stored with other numbers than those that they are tied to."""

    def __bool__(self) -> bool:
        return any(self)


def require_whole(model: Any, folder: Path, info: Mapping[str, Any]) -> None:
    """Raises StageError where a tensor of a model did not come from its folder, or one of the folder's was not used.

    Compares names, shapes and dtypes in the headers with the model's own, and believes transformers' account of the
    loading (`info`) as well. Tied weights, and what the model's class expects to be absent or superfluous, are
    excepted.
    """
    stored = _stored(folder)
    misfits = find_misfits(model, stored, info)
    if misfits:
        reason = likely_reason(model, stored, misfits.missing, misfits.unused, misfits.misshaped)
        raise StageError(
            f"{folder}: its weights do not fit {type(model).__name__}: {'; '.join(_told_misfits(misfits))}. {reason}"
        )


def require_saved(model: Any, folder: Path) -> None:
    """Raises StageError where what was written of a model is not the model, number by number.

    Tensor by tensor, so that no second copy of it is held. Under another name (transformers saves some families as
    they were published) the file is loaded again instead, and that is compared.
    """
    stored = _stored(folder)
    own: dict[str, Tensor] = model.state_dict(keep_vars=True)
    if stored.keys() <= own.keys():
        known = {id(own[name]) for name in stored}
        lacking = [name for name, tensor in own.items() if id(tensor) not in known]
        differing = [name for name, tensor in _read(folder) if not _is_equal(tensor, own[name])]
    else:
        again = type(model).from_pretrained(folder, dtype=model.dtype, local_files_only=True).state_dict()
        lacking = sorted(own.keys() - again.keys())
        differing = [name for name in own.keys() & again.keys() if not _is_equal(again[name], own[name])]
    if lacking or differing:
        what = f"lacks {few(lacking)}" if lacking else f"has other numbers in {few(differing)}"
        raise StageError(f"{folder}: what was written of {type(model).__name__} {what}: it is not the model")


def _read(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for file_name in files_of(folder).weights:
        with safe_open(folder / file_name, framework="pt") as file:
            yield from ((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118 (no mapping)


def _is_equal(tensor: Tensor, own: Tensor) -> bool:
    return tensor.dtype == own.dtype and torch.equal(tensor, own.cpu())


def require_finite(model: nn.Module, name: str) -> None:
    """Raises StageError where a weight is NaN or infinite: one pass over the weights, no copy."""
    bad = [name for name, weight in model.named_parameters() if not is_finite(weight.data)]
    if bad:
        raise StageError(f"{name}: these weights are not finite: {few(bad)}; is the file, or its dtype, the right one?")


def is_finite(weight: Tensor) -> bool:
    if not weight.numel():
        return True
    least, most = torch.aminmax(weight)
    return bool(least.isfinite() & most.isfinite())


def _stored(folder: Path) -> dict[str, StoredTensor]:
    """-> every tensor in the files that transformers reads."""
    tensors: dict[str, StoredTensor] = {}
    for name in files_of(folder).weights:
        try:
            tensors |= stored_tensors(folder / name)
        except BadTensorFileError as error:
            raise StageError(f"{folder / name} cannot be read: {error}; copy or fetch it again") from error
    return tensors


def find_misfits(model: Any, stored: Mapping[str, StoredTensor], info: Mapping[str, Any]) -> Misfits:
    """-> all that does not fit; see `require_whole`."""
    expected: dict[str, Tensor] = model.state_dict(keep_vars=True)
    placed = _placed(model, stored, expected)
    sources: dict[str, list[str]] = {}
    for name, (target, pattern) in placed.items():
        if pattern is None and target in expected:
            sources.setdefault(target, []).append(name)
    direct = {target: stored[names[0]] for target, names in sources.items()}
    is_converted = any(pattern is not None for _, pattern in placed.values())
    unused = [name for name, (target, _) in placed.items() if target not in expected]
    mismatched = {name: (tuple(there), tuple(here)) for name, there, here in info["mismatched_keys"]}
    return Misfits(
        missing=tuple(_missing(model, expected, direct, set(info["missing_keys"]), is_converted)),
        unused=tuple(sorted({*_not_ignored(model, unused), *(info["unexpected_keys"] if is_converted else ())})),
        misshaped=mismatched | _misshaped(direct, expected),
        doubled=tuple((names[0], names[1]) for names in sources.values() if len(names) > 1),
        missorted={name: tensor.dtype for name, tensor in direct.items() if _is_of_other_sort(tensor, expected[name])},
        misnumbered=tuple(_misnumbered(placed)),
        untied=tuple(_untied(model, direct, expected)),
    )


def _placed(model: Any, stored: Iterable[str], expected: Mapping[str, Tensor]) -> dict[str, tuple[str, str | None]]:
    """-> for each stored name: the model's name, and the pattern by which it is made from several, if it is."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    placed: dict[str, tuple[str, str | None]] = {}
    for name in sorted(stored, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, expected)
        if target not in expected and name in expected:
            target, pattern = name, None
        placed[name] = (target, pattern)
    return placed


def stored_names(model: Any, stored: Iterable[str]) -> dict[str, str]:
    """-> the name in the files of each tensor of a model that is one of theirs; of a tied one under all its names."""
    expected: dict[str, Tensor] = model.state_dict(keep_vars=True)
    placed = _placed(model, stored, expected)
    names = {target: name for name, (target, pattern) in placed.items() if pattern is None and target in expected}
    by_tensor = {id(expected[target]): name for target, name in names.items()}
    tied = {name: by_tensor[id(tensor)] for name, tensor in expected.items() if id(tensor) in by_tensor}
    return tied | names


def _missing(
    model: Any,
    expected: Mapping[str, Tensor],
    direct: Collection[str],
    missing: Collection[str],
    is_converted: bool,
) -> Iterator[str]:
    """-> names that nothing was loaded into; one name of a tied weight is enough for all."""
    known = {id(expected[name]) for name in direct}
    if is_converted:  # made from several: transformers' account
        known |= {id(tensor) for name, tensor in expected.items() if name not in missing}
    buffers = {name for name, _ in model.named_buffers()}
    patterns = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_missing or ()]
    for name, tensor in expected.items():
        is_meant = name in buffers and any(pattern.search(name) for pattern in patterns)
        if id(tensor) not in known and not is_meant:
            known.add(id(tensor))
            yield name


def _not_ignored(model: Any, names: Iterable[str]) -> Iterator[str]:
    ignored = [re.compile(one) for one in (*(model._keys_to_ignore_on_load_unexpected or ()), *OLD_BUFFERS)]
    yield from (name for name in names if not any(pattern.search(name) for pattern in ignored))


def _misshaped(
    direct: Mapping[str, StoredTensor], expected: Mapping[str, Tensor]
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    shapes = {name: (tensor.shape, tuple(expected[name].shape)) for name, tensor in direct.items()}
    return {name: (there, here) for name, (there, here) in shapes.items() if there != here}


def _is_of_other_sort(stored: StoredTensor, tensor: Tensor) -> bool:
    return (stored.dtype in FLOATS) != tensor.is_floating_point()


def _misnumbered(placed: Mapping[str, tuple[str, str | None]]) -> Iterator[str]:
    """-> names of lists (experts) that do not count from 0 up, one by one."""
    lists: dict[tuple[str, str], list[list[str]]] = {}
    for name, (target, pattern) in placed.items():
        if pattern is not None:
            lists.setdefault((target, pattern), []).append(name.split("."))
    for names in lists.values():
        if len({len(parts) for parts in names}) > 1:
            yield ".".join(names[0])
            continue
        varying = [values for values in zip(*names, strict=True) if len(set(values)) > 1]
        for values in varying:
            if sorted(values) != sorted(map(str, range(len(names)))):
                yield ".".join(names[-1])


def _untied(model: Any, direct: Collection[str], expected: Mapping[str, Tensor]) -> Iterator[str]:
    """-> weights that the configuration ties, and that transformers left apart as their numbers differ."""
    for target, source in model.get_expanded_tied_weights_keys(all_submodels=True).items():
        both = target in direct and source in direct
        if both and expected[target] is not expected[source]:
            yield target


def _told_misfits(misfits: Misfits) -> Iterator[str]:
    if misfits.missing:
        yield f"{_counted(misfits.missing)} of the model {_be(misfits.missing)} in no file ({few(misfits.missing)})"
    if misfits.unused:
        yield f"{_counted(misfits.unused)} of the files {_be(misfits.unused)} not the model's ({few(misfits.unused)})"
    if misfits.misshaped:
        name, (there, here) = next(iter(misfits.misshaped.items()))
        more = f" and {len(misfits.misshaped) - 1} more" if len(misfits.misshaped) > 1 else ""
        yield f"{name} is {_by(there)} in the file and {_by(here)} in the model{more}"
    yield from (f"{one} and {other} of the files are one tensor of the model" for one, other in misfits.doubled[:2])
    if misfits.missorted:
        name, dtype = next(iter(misfits.missorted.items()))
        yield f"{name} is stored as {dtype}, which would be cast without a word"
    if misfits.misnumbered:
        yield f"the numbers of a list do not go up one by one ({few(misfits.misnumbered)})"
    if misfits.untied:
        yield (
            f"{few(misfits.untied)} is stored with other numbers than the embedding, to which its config.json ties it"
            " (tie_word_embeddings)"
        )


def _counted(names: Collection[str]) -> str:
    return "1 tensor" if len(names) == 1 else f"{len(names)} tensors"


def _be(names: Collection[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def few(names: Collection[str], limit: int = 4) -> str:
    """-> up to `limit` names, and how many more."""
    shown = ", ".join(list(names)[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
