"""Models from folders on this disk: loaded, and merged with what was trained on top of them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError

from ablate.core import model_files
from ablate.core.errors import StageError
from ablate.core.model_faults import faults
from ablate.data.tokenizers import load_tokenizer
from ablate.study.quantize import Quantize
from ablate.training import tensor_checks
from ablate.training.merging import Checkpoint, merge, stored_dtype

NO_ADAPTER = "no_adapter"
"""A folder that no model has: there transformers looks for an adapter beside the weights, and finds none."""


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
    quantize: Quantize | None = None,
    quantize_on: str | None = None,
    trainings: Sequence[Path] = (),
) -> LoadedModel:
    """-> the model that a chain of trainings made, in eval mode, no weight of it trainable.

    `adapters` are the `out` folders of trainings, each on top of the one before: an adapter, or all weights
    (`lora: none`). Each adapted weight is summed in float32 (or wider), then cast once to `dtype`. `tokenizer`: its
    folder, where it is not the model's. `quantize`: the linear modules are kept so, `adapters` being in their numbers
    and `trainings` summed with them (see `quantized`); without it `trainings` come after `adapters`, no more.
    `quantize_on`: the device that computes them, matrix by matrix, where it is not the one that the model goes to.
    Raises StageError when the folder holds no model that can be read without running code, when one tensor of the model
    is not from it or one of it is not used, when an adapter does not fit, or a weight is not finite.
    """
    load = partial(_load, model_folder, trust_remote_code=trust_remote_code)
    model = load(getattr(torch, dtype), "cpu" if quantize else device)  # few bits go from the files to the device
    if quantize or adapters or trainings:
        is_exact = torch.promote_types(stored_dtype(model_folder), model.dtype) == model.dtype
        exact = None if is_exact else Checkpoint(model_folder, model, load).weight
        merge(model, adapters, trainings, exact, quantize, device, quantize_on)
    model = model.to(device).eval()
    tensor_checks.require_finite(model, str(model_folder))
    return LoadedModel(model, load_tokenizer(tokenizer or model_folder, trust_remote_code))


def _load(folder: Path, dtype: torch.dtype, device: str = "cpu", *, trust_remote_code: bool = False) -> Any:
    """-> a model whose weights went from its files to the device; on a CPU those of this dtype stay in the files."""
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
            device_map=None if device == "cpu" else {"": device},
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
