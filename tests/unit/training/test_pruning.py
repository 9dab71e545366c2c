"""Cut models against plain transformers: their layers left out in memory, their parts set to 0 or sliced by hand."""

import copy
import json
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support import tiny_models

from ablate.core.errors import StageError
from ablate.stages.prune import PruneSettings
from ablate.store.kind import KINDS
from ablate.study.pruning import Prune
from ablate.study.training_recipes import Finetune
from ablate.training import pruning
from ablate.training.adapters import Origin
from ablate.training.trainable import make_trainable

SIZES = {
    "vocab_size": 40, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 5, "num_attention_heads": 6,
    "num_key_value_heads": 3, "head_dim": 4, "max_position_embeddings": 64, "initializer_range": 0.3, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
DEEP = {
    "gemma2": ("Gemma2Config", {"sliding_window": 4, "query_pre_attn_scalar": 4}),
    "gemma3_text": ("Gemma3TextConfig", {"sliding_window": 4, "query_pre_attn_scalar": 4, "sliding_window_pattern": 2}),
    "granite": ("GraniteConfig", {"residual_multiplier": 0.5, "attention_multiplier": 0.3}),
    "llama": ("LlamaConfig", {"tie_word_embeddings": False}),
    "mistral": ("MistralConfig", {"sliding_window": 4}),
    "olmo2": ("Olmo2Config", {}),
    "phi3": ("Phi3Config", {}),
    "qwen2": ("Qwen2Config", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}),
    "qwen3": ("Qwen3Config", {"tie_word_embeddings": True}),
    "smollm3": ("SmolLM3Config", {"no_rope_layer_interval": 2}),
}
WIDE = ("llama", "mistral", "qwen2", "qwen3")
IDS = torch.tensor([[5, 17, 3, 9, 30, 2, 8, 8, 21, 11]])


def _save(folder: Path, family: str, seed: int = 0, **changes):
    """-> a model whose every weight is random, biases and norms too, and its folder."""
    name, own = DEEP[family]
    torch.manual_seed(seed)
    config = getattr(transformers, name)(**SIZES | own | changes)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.data += (1.0 if parameter.dim() == 1 else 0.2) * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)
    return model


def _pruned(root: Path, source: Path, base: Path | None = None, **cut):
    """-> the folder that a prune stage makes of a model's."""
    stages = {"model": _fetched(root / "fetch-of-model", source)}
    if base:
        fetch = _fetched(root / "fetch-aaaaaaaaaaaa", base)
        payload = {"payload": {"kind": "fetch", "inputs": {"base": fetch.name.removeprefix("fetch-")}}}
        (stages["model"] / "stage.json").write_text(json.dumps(payload))
    job = tiny_models.job(root / "prune", PruneSettings(cut=Prune.model_validate(cut)), **stages)
    KINDS["prune"].run(job)
    KINDS["prune"].check(root / "prune")
    return job.out


def _fetched(folder: Path, source: Path) -> Path:
    (folder / "out").mkdir(parents=True)
    (folder / "out/manifest.json").write_text(json.dumps({"path": str(source), "files": {}}))
    return folder


def _load(folder: Path):
    """-> the model, loaded as anybody would; a warning is a mistake."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float64, output_loading_info=True
        )
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    return model.eval()


@torch.no_grad()
def _logits(model):
    return model(IDS, use_cache=False).logits


def _without_layers(model, layers):
    """-> a copy that runs these layers alone, which keep what they are by number."""
    cut = copy.deepcopy(model)
    cut.model.layers = torch.nn.ModuleList([cut.model.layers[layer] for layer in layers])
    cut.config.num_hidden_layers = len(layers)
    for name in ("layer_types", "no_rope_layers"):
        if getattr(cut.config, name, None):
            setattr(cut.config, name, [getattr(cut.config, name)[layer] for layer in layers])
    return cut


@pytest.mark.parametrize("family", DEEP)
def test_a_model_cut_in_depth_is_the_model_whose_other_layers_are_skipped(family, tmp_path):
    model = _save(tmp_path / "model", family)
    out = _pruned(tmp_path, tmp_path / "model", layers=[1, 2, 4])
    expected = _logits(_without_layers(model, [1, 2, 4]))
    assert (_logits(_load(out)) - expected).abs().max() < 1e-12 * expected.abs().max()
    assert (expected - _logits(model)).abs().max() > 1e-3


def test_a_share_of_the_layers_keeps_the_first_and_the_last_and_those_between_at_even_distances(tmp_path):
    _save(tmp_path / "model", "llama")
    out = _pruned(tmp_path, tmp_path / "model", depth=0.6)
    assert json.loads((out / "pruning.json").read_text()) == {"layers": [0, 2, 4]}


@pytest.mark.parametrize("family", DEEP)
def test_a_cut_of_nothing_leaves_every_weight_as_it_was_bit_for_bit(family, tmp_path):
    _save(tmp_path / "model", family)
    out = _pruned(tmp_path, tmp_path / "model", layers=[0, 1, 2, 3, 4])
    whole, cut = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", out))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@torch.no_grad()
def _zeroed(model, out: Path, neurons: int | None = None):
    """-> the model with what a cut leaves out made 0: heads by what it recorded, neurons by brute force."""
    zeroed = copy.deepcopy(model)
    record = json.loads((out / "pruning.json").read_text())
    for number, layer in enumerate(zeroed.model.layers):
        kept = record.get("kv_heads", {}).get(str(number))
        if kept is not None:
            out_proj = layer.self_attn.o_proj.weight.data.view(24, 3, 8)
            out_proj[:, [group for group in range(3) if group not in kept]] = 0
        if neurons:
            norm = layer.post_attention_layernorm.weight
            mlp = layer.mlp
            parts = [[(mlp.gate_proj.weight[i] * norm), (mlp.up_proj.weight[i] * norm), mlp.down_proj.weight[:, i]]
                     for i in range(20)]  # fmt: skip
            weights = [float(torch.stack([part.norm() for part in three]).prod()) for three in parts]
            least = sorted(range(20), key=lambda i: weights[i])[: 20 - neurons]
            mlp.down_proj.weight.data[:, least] = 0
    return zeroed


@pytest.mark.parametrize("family", WIDE)
@pytest.mark.parametrize("width", [{"intermediate": 0.4}, {"heads": 4}, {"intermediate": 12, "heads": 2}], ids=str)
def test_a_model_without_some_neurons_and_heads_is_the_model_in_which_they_say_nothing(family, width, tmp_path):
    model = _save(tmp_path / "model", family)
    out = _pruned(tmp_path, tmp_path / "model", width=width)
    neurons = {0.4: 8, 12: 12}.get(width.get("intermediate"))
    expected = _logits(_zeroed(model, out, neurons))
    assert (_logits(_load(out)) - expected).abs().max() < 1e-12 * expected.abs().max()
    assert (expected - _logits(model)).abs().max() > 1e-3


def test_the_heads_that_stay_are_those_whose_values_add_most(tmp_path):
    model = _save(tmp_path / "model", "qwen2")
    out = _pruned(tmp_path, tmp_path / "model", width={"heads": 4})
    for number, layer in enumerate(model.model.layers):
        norm = layer.input_layernorm.weight
        added = [0.0] * 3
        for head in range(6):
            value = layer.self_attn.v_proj.weight.view(3, 4, 24)[head // 2] * norm
            added[head // 2] += float((layer.self_attn.o_proj.weight.view(24, 6, 4)[:, head] @ value).square().sum())
        kept = json.loads((out / "pruning.json").read_text())["kv_heads"][str(number)]
        assert kept == sorted(sorted(range(3), key=lambda group: -added[group])[:2])


def _sliced(model, kept):
    """-> the model's tensors with these channels alone, by their shapes: 24 is the width of nothing else."""
    sliced = {}
    for name, tensor in model.state_dict().items():
        for dim, size in enumerate(tensor.shape):
            if size == 24 and not (("q_proj" in name and dim == 0) or ("o_proj.weight" in name and dim == 1)):
                tensor = tensor.index_select(dim, torch.tensor(kept))
        sliced[name] = tensor
    return sliced


@pytest.mark.parametrize("family", WIDE)
def test_a_narrower_model_has_the_weights_of_the_channels_that_stay(family, tmp_path):
    model = _save(tmp_path / "model", family)
    out = _pruned(tmp_path, tmp_path / "model", width={"hidden": 0.5})
    kept = json.loads((out / "pruning.json").read_text())["hidden"]
    narrow, sliced = _load(out), _sliced(model, kept)
    assert len(kept) == 12
    assert all(torch.equal(tensor, sliced[name]) for name, tensor in narrow.state_dict().items())
    assert narrow.config.head_dim == 4
    assert kept == sorted(sorted(range(24), key=lambda channel: -_written_and_read(model, channel))[:12])


def _written_and_read(model, channel: int) -> float:
    """How much all layers write to a channel, times how much they read from it: one weight after the other."""
    inner, head = model.model, model.lm_head.weight
    writes = float(inner.embed_tokens.weight[:, channel].square().sum())
    reads = float((head[:, channel] * inner.norm.weight[channel]).square().sum())
    for layer in inner.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for part in (attention.o_proj, mlp.down_proj):
            writes += float(part.weight[channel].square().sum())
        for part in (attention.q_proj, attention.k_proj, attention.v_proj):
            reads += float((part.weight[:, channel] * layer.input_layernorm.weight[channel]).square().sum())
        for part in (mlp.gate_proj, mlp.up_proj):
            reads += float((part.weight[:, channel] * layer.post_attention_layernorm.weight[channel]).square().sum())
    return (writes * reads) ** 0.5


@pytest.mark.parametrize("family", [family for family in WIDE if family != "llama"])
def test_a_width_need_be_no_multiple_of_the_heads_where_transformers_wants_none(family, tmp_path):
    _save(tmp_path / "model", family)
    out = _pruned(tmp_path, tmp_path / "model", width={"hidden": 22, "heads": 4})
    model = _load(out)
    assert (model.config.hidden_size, model.config.num_attention_heads) == (22, 4)
    assert _logits(model).isfinite().all()


def test_a_tied_head_stays_tied_and_all_cuts_go_together(tmp_path):
    _save(tmp_path / "model", "qwen3")
    cut = {"layers": [0, 3], "width": {"hidden": 12, "intermediate": 6, "heads": 4}}
    model = _load(_pruned(tmp_path, tmp_path / "model", **cut))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.shape == (40, 12)
    assert model.model.layers[1].self_attn.q_proj.weight.shape == (16, 12)
    assert model.model.layers[1].self_attn.k_proj.weight.shape == (8, 12)
    assert model.model.layers[1].mlp.down_proj.weight.shape == (12, 6)
    assert _logits(model).isfinite().all()


def test_a_large_model_is_cut_file_by_file_and_read_by_its_index(tmp_path, monkeypatch):
    model = _save(tmp_path / "model", "llama")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    tiny_models.tokenizer().save_pretrained(tmp_path / "shards")
    monkeypatch.setattr(pruning, "SHARD_BYTES", 30_000)
    out = _pruned(tmp_path, tmp_path / "shards", layers=[0, 2])
    assert len(list(out.glob("*.safetensors"))) > 1
    assert torch.allclose(_logits(_load(out)), _logits(_without_layers(model, [0, 2])), rtol=0, atol=1e-12)


def test_an_adapter_is_merged_before_the_cut_and_rounded_by_nobody(tmp_path):
    model = _save(tmp_path / "model", "llama").to(torch.bfloat16)
    model.save_pretrained(tmp_path / "model")
    trained = copy.deepcopy(model)
    recipe = Finetune(lora={"rank": 2, "target_modules": ["v_proj"]})
    adapter = make_trainable(trained, recipe, 0, Origin())
    for weight in adapter.weights.values():
        weight.data = torch.randn_like(weight)
    (tmp_path / "adapter").mkdir()
    adapter.save(tmp_path / "adapter")
    out = _pruned(tmp_path, tmp_path / "adapter", base=tmp_path / "model", layers=[0, 2])
    tensors = load_file(out / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    named = load_file(tmp_path / "adapter/adapter_model.safetensors")
    a, b = (named[f"base_model.model.model.layers.2.self_attn.v_proj.lora_{part}.weight"] for part in "AB")
    expected = model.model.layers[2].self_attn.v_proj.weight.double() + recipe.lora.scale * (b.double() @ a.double())
    assert torch.allclose(tensors["model.layers.1.self_attn.v_proj.weight"].double(), expected, rtol=1e-6, atol=1e-6)
    assert json.loads((out / "config.json").read_text())["dtype"] == "float32"
    assert (out / "tokenizer.json").is_file()


def test_beside_an_adapters_own_tokenizer_lies_no_template_of_its_base(tmp_path):
    model = _save(tmp_path / "model", "llama")
    (tmp_path / "model/chat_template.jinja").write_text("the base's")
    adapter = make_trainable(model, Finetune(lora={"rank": 2, "target_modules": ["v_proj"]}), 0, Origin())
    (tmp_path / "adapter").mkdir()
    adapter.save(tmp_path / "adapter")
    tokenizer = copy.deepcopy(tiny_models.tokenizer())
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "adapter")
    out = _pruned(tmp_path, tmp_path / "adapter", base=tmp_path / "model", layers=[0, 2])
    assert not (out / "chat_template.jinja").exists()
    assert (out / "tokenizer.json").read_bytes() == (tmp_path / "adapter/tokenizer.json").read_bytes()
    assert (out / "generation_config.json").read_bytes() == (tmp_path / "model/generation_config.json").read_bytes()


@pytest.mark.parametrize(
    ("family", "cut", "why"),
    [
        ("gpt2", {"depth": 0.5}, "a model of type 'gpt2' cannot be cut here. Possible: gemma2, gemma3_text, granite"),
        ("gemma2", {"width": {"heads": 0.5}}, "'gemma2' can be cut in depth alone. In width: llama, mistral, qwen2"),
        ("llama", {"layers": [0, 2]}, "layers: there is no layer 2: the model has 2, 0 to 1"),
        ("llama", {"width": {"hidden": 0.6}}, "hidden: a width of 14 is .* of 4 heads, .*: 12 or 16 would be"),
    ],
)
def test_a_model_that_cannot_be_cut_so_is_refused_with_what_is_possible(family, cut, why, tmp_path, monkeypatch):
    monkeypatch.setitem(tiny_models.FAMILIES, "llama", ("LlamaConfig", tiny_models.SMALL | {"num_attention_heads": 4}))
    tiny_models.save(tmp_path / "model", family)
    with pytest.raises(StageError, match=why):
        _pruned(tmp_path, tmp_path / "model", **cut)


def test_a_tensor_that_is_not_known_is_not_guessed_at(tmp_path):
    model = _save(tmp_path / "model", "llama")
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    extra = {"model.layers.0.self_attn.sinks": torch.zeros(6)}
    save_file(tensors | extra, tmp_path / "model/model.safetensors", {"format": "pt"})
    with pytest.raises(StageError, match=r"self_attn.sinks of shape \(6,\) is no part of a llama"):
        _pruned(tmp_path, tmp_path / "model", width={"heads": 2})
