"""A model's weights, cut: layers left out, and of those that stay the channels, neurons and heads that matter least.

Every weight that stays is the one that it was, bit for bit.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ablate.core import disk, model_files
from ablate.core.errors import StageError
from ablate.store.job import Job
from ablate.study.pruning import PER_LAYER, Cut, Prune, cut_of, pruning_problems, shape_of
from ablate.training import files, models
from ablate.training.merging import stored_dtype
from ablate.training.pruning_importance import Kept, kept_parts

SHARD_BYTES = 2**32
RECORD = "pruning.json"
LAYER = re.compile(r"(?P<above>(?:.*\.)?layers\.)(?P<layer>\d+)\.(?P<within>.+)")
AXES: Mapping[str, tuple[str, ...]] = {
    "embed_tokens.weight": ("", "hidden"),
    "lm_head.weight": ("", "hidden"),
    "norm.weight": ("hidden",),
    "input_layernorm.weight": ("hidden",),
    "post_attention_layernorm.weight": ("hidden",),
    "self_attn.q_proj.weight": ("heads", "hidden"),
    "self_attn.k_proj.weight": ("kv_heads", "hidden"),
    "self_attn.v_proj.weight": ("kv_heads", "hidden"),
    "self_attn.o_proj.weight": ("hidden", "heads"),
    "self_attn.q_proj.bias": ("heads",),
    "self_attn.k_proj.bias": ("kv_heads",),
    "self_attn.v_proj.bias": ("kv_heads",),
    "self_attn.o_proj.bias": ("hidden",),
    "self_attn.q_norm.weight": ("",),
    "self_attn.k_norm.weight": ("",),
    "self_attn.rotary_emb.inv_freq": ("",),
    "mlp.gate_proj.weight": ("intermediate", "hidden"),
    "mlp.up_proj.weight": ("intermediate", "hidden"),
    "mlp.down_proj.weight": ("hidden", "intermediate"),
    "mlp.gate_proj.bias": ("intermediate",),
    "mlp.up_proj.bias": ("intermediate",),
    "mlp.down_proj.bias": ("hidden",),
}
"""Name of a tensor, within its layer or at the top -> along what each of its dimensions is cut; "": along nothing."""


def write_pruned(job: Job, folder: Path, adapters: Sequence[Path], prune: Prune) -> None:
    """Writes config, weights and `RECORD` of a folder's model, adapters merged, cut so, to `job.out`.

    Raises StageError where the model cannot be cut so, or has tensors whose place in it is not known.
    """
    config = json.loads((folder / model_files.CONFIG).read_text(encoding="utf-8"))
    cut = _cut(prune, config)
    tensors = _merged(folder, adapters) if adapters else StoredTensors(folder)
    kept = kept_parts(tensors, cut)
    _write_shards(job, _cut_tensors(tensors, cut, kept), len(cut.layers) / cut.whole.layers * len(tensors))
    config |= _changed(folder, config, cut) | ({_dtype_field(config): "float32"} if adapters else {})
    disk.write_json(job.out / model_files.CONFIG, config)
    disk.write_json(job.out / RECORD, {"layers": list(cut.layers), **kept.record})


def _cut(prune: Prune, config: Mapping[str, Any]) -> Cut:
    problems = [": ".join(filter(None, (".".join(field), why))) for field, why in pruning_problems(prune, config)]
    shape = shape_of(config)
    if problems or shape is None:
        raise StageError(f"student.prune: {'; '.join(problems)}", "mismatch")
    return cut_of(prune, shape)


# config.json


def _changed(folder: Path, config: Mapping[str, Any], cut: Cut) -> dict[str, Any]:
    """-> the fields of a config that a cut changes; what follows from a layer's number is said of each that stays."""
    from transformers import AutoConfig

    loaded = AutoConfig.from_pretrained(folder, local_files_only=True)
    per_layer = {name: values for name in PER_LAYER if (values := getattr(loaded, name, None))}
    if whole := [name for name, values in per_layer.items() if len(values) != cut.whole.layers]:
        raise StageError(f"config.json: {whole[0]} is not of {cut.whole.layers} layers")
    changed: dict[str, Any] = {name: [values[i] for i in cut.layers] for name, values in per_layer.items()}
    changed["num_hidden_layers"] = len(cut.layers)
    if cut.is_wide:
        changed |= {"hidden_size": cut.hidden, "intermediate_size": cut.intermediate, "head_dim": cut.whole.head_dim}
        changed |= {"num_attention_heads": cut.heads, "num_key_value_heads": cut.kv_heads}
    return changed


def _dtype_field(config: Mapping[str, Any]) -> str:
    return "torch_dtype" if "torch_dtype" in config else "dtype"


# weights


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of a model's folder by their names, each read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        opened: list[Any] = [safe_open(folder / name, framework="pt") for name in model_files.files_of(folder).weights]
        self._files: dict[str, Any] = {name: file for file in opened for name in file.keys()}  # noqa: SIM118 (no mapping)

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._files))

    def __len__(self) -> int:
        return len(self._files)


def _merged(folder: Path, adapters: Sequence[Path]) -> Mapping[str, Tensor]:
    """-> the weights with adapters merged, in float32 (or wider), shared ones once."""
    dtype = torch.promote_types(stored_dtype(folder), torch.float32)
    model = models.load_merged(folder, adapters, str(dtype).removeprefix("torch.")).model
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _cut_tensors(tensors: Mapping[str, Tensor], cut: Cut, kept: Kept) -> Iterator[tuple[str, Tensor]]:
    number = {layer: index for index, layer in enumerate(cut.layers)}
    for name in tensors:
        match = LAYER.fullmatch(name)
        layer = int(match["layer"]) if match else None
        if match and layer is not None:
            if layer in number:
                within = match["within"]
                yield f"{match['above']}{number[layer]}.{within}", _narrowed(tensors[name], within, cut, kept, layer)
        else:
            yield name, _narrowed(tensors[name], name.removeprefix("model."), cut, kept, None)


def _narrowed(tensor: Tensor, name: str, cut: Cut, kept: Kept, layer: int | None) -> Tensor:
    if not cut.is_wide:
        return tensor
    axes = AXES.get(name)
    if axes is None or len(axes) != tensor.dim():
        raise StageError(f"{name} of shape {tuple(tensor.shape)} is no part of a {cut.whole.kind} that is known here")
    for dim, axis in enumerate(axes):
        index = kept.index(axis, layer)
        tensor = tensor if index is None else tensor.index_select(dim, index)
    return tensor.contiguous()


def _write_shards(job: Job, tensors: Iterator[tuple[str, Tensor]], total: float) -> None:
    """One file, or several and their index."""
    shard: dict[str, Tensor] = {}
    weight_map: dict[str, str] = {}
    num_bytes = size = 0
    for number, (name, tensor) in enumerate(tensors, 1):
        if shard and size + tensor.nbytes > SHARD_BYTES:
            weight_map |= _write_shard(job.out, shard, len(set(weight_map.values())))
            shard, size = {}, 0
        shard[name], size, num_bytes = tensor, size + tensor.nbytes, num_bytes + tensor.nbytes
        job.progress(number, int(total), "tensor")
        job.stop_if_asked()
    if not weight_map:
        files.save(shard, job.out / model_files.SINGLE, {"format": "pt"})
        return
    weight_map |= _write_shard(job.out, shard, len(set(weight_map.values())))
    index = {"metadata": {"total_size": num_bytes}, "weight_map": weight_map}
    disk.write_json(job.out / model_files.INDEX, index)


def _write_shard(out: Path, shard: Mapping[str, Tensor], number: int) -> dict[str, str]:
    file = f"model-{number + 1:05}.safetensors"
    files.save(shard, out / file, {"format": "pt"})
    return dict.fromkeys(shard, file)
