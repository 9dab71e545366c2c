"""Models from folders on this disk: loaded, and merged with what was trained on top of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from ablate.core import model_files
from ablate.core.errors import StageError
from ablate.core.model_faults import faults
from ablate.data.tokenizers import load_tokenizer
from ablate.training import adapters as lora
from ablate.training import tensor_checks

FULL_WEIGHTS = "model.safetensors"
NO_ADAPTER = "no_adapter"
"""A folder that no model has: there transformers looks for an adapter beside the weights, and finds none."""
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class LoadedModel(NamedTuple):
    """A model and the tokenizer that its folder holds."""

    model: Any
    tokenizer: Any


def load_merged(
    model_folder: Path,
    adapters: Sequence[Path],
    dtype: str,
    device: str = "cpu",
    *,
    trust_remote_code: bool = False,
    tokenizer: Path | None = None,
) -> LoadedModel:
    """-> the model that a chain of trainings made, in eval mode, no weight of it trainable.

    `adapters` are the `out` folders of trainings, each on top of the one before: an adapter, or all weights
    (`lora: none`). Each adapted weight is summed in float32 (or wider), then cast once to `dtype`. `tokenizer`: its
    folder, where it is not the model's.
    Raises StageError when the folder holds no model that can be read without running code, when one tensor of the model
    is not from it or one of it is not used, when an adapter does not fit, or a weight is not finite.
    """
    model = _load(model_folder, getattr(torch, dtype), trust_remote_code)
    if adapters:
        stored = stored_dtype(model_folder)
        is_exact = torch.promote_types(stored, model.dtype) == model.dtype
        _apply_trainings(model, adapters, model if is_exact else _load(model_folder, stored, trust_remote_code))
    model = model.to(device).eval()
    tensor_checks.require_finite(model, str(model_folder))
    return LoadedModel(model, load_tokenizer(tokenizer or model_folder, trust_remote_code))


def _load(folder: Path, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            adapter_kwargs={"subfolder": NO_ADAPTER},
            ignore_mismatched_sizes=True,  # told by `require_whole`, and in better words
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise StageError(_why_unloadable(folder, error, trust_remote_code)) from error
    if getattr(model, "_hf_peft_config_loaded", False):
        raise StageError(f"{folder}: transformers attached the adapter that lies beside the weights")
    tensor_checks.require_whole(model, folder, info)
    return model.requires_grad_(False)


def _why_unloadable(folder: Path, error: Exception, trust_remote_code: bool) -> str:
    """-> what the files themselves say against it, else transformers' own words."""
    known = list(faults(model_files.files_of(folder), trust_remote_code=trust_remote_code))
    why = "; ".join(known) or _first_line(error)
    return f"{folder}: no causal language model can be loaded from it ({why})"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def stored_dtype(folder: Path) -> torch.dtype:
    """-> the widest floating dtype of a checkpoint, in which every weight of it is exact."""
    widest: torch.dtype = torch.bfloat16
    for name in model_files.files_of(folder).weights:
        with safe_open(folder / name, framework="pt") as file:
            kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (no mapping)
        for kind in kinds & _DTYPES.keys():
            widest = torch.promote_types(widest, _DTYPES[kind])
    return widest


@torch.no_grad()
def _apply_trainings(model: nn.Module, adapters: Sequence[Path], exact: nn.Module) -> None:
    """Makes the chain in `exact` (the model itself, or its checkpoint read without rounding), then casts into `model`.

    Weights alone are cast: `model.to(dtype)` would round buffers too, the rotary frequencies among them, and weights
    that the architecture keeps in float32.
    """
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    for folder in adapters:
        if (folder / FULL_WEIGHTS).is_file():
            replace_weights(exact, folder / FULL_WEIGHTS)
        else:
            lora.merge_into(exact, folder)
    weights = dict(exact.named_parameters())
    for name, parameter in model.named_parameters():
        parameter.data = weights[name].to(dtypes[name])


@torch.no_grad()
def replace_weights(model: nn.Module, file: Path) -> None:
    """Puts fully trained weights in the place of the model's own. Raises StageError when names or shapes differ."""
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise StageError(f"{file} cannot be read ({error}); remove its stage folder and run again") from error
    named = dict(model.named_parameters())
    differing = sorted(named.keys() ^ weights.keys()) or [n for n in named if named[n].shape != weights[n].shape]
    differing = differing or [name for name in named if not weights[name].is_floating_point()]
    if differing:
        raise StageError(f"{file}: these weights do not fit {type(model).__name__}: {tensor_checks.few(differing, 8)}")
    for name, parameter in named.items():
        parameter.data = weights[name].to(parameter.device)
