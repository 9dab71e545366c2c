"""Layers that run as one kernel: put into the families that are known, taken out again, and left out where wrong."""

import json
from dataclasses import replace

import pytest
import torch
import transformers
from support import reference
from support import tiny_models as tiny
from support.counts import counting
from support.fused_kernels import COUNTED
from torch.nn.functional import gelu, silu

from ablate.losses import parse
from ablate.training import adapters, ranks, trainable
from ablate.training.fused_layers import NUM_TOKENS, FusedLayers, Kernels, installed_kernels, replacements
from ablate.training.loss import CLASS_LOSS, Objective
from ablate.training.model_parts import split_model
from ablate.training.selfcheck import fused_where_sound, require_sound

ROWS = tiny.random_rows(reference.LENGTHS, reference.PROMPTS)
BUDGET = 2048
SETTINGS = tiny.SMALL | {"head_dim": 12}
SIX = ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FAMILIES = {
    "Llama": ("LlamaRMSNorm 24", "LlamaMLP", "apply_rotary_pos_emb 12"),
    "Mistral": ("MistralRMSNorm 24", "MistralMLP", "apply_rotary_pos_emb 12"),
    "Qwen2": ("Qwen2RMSNorm 24", "Qwen2MLP", "apply_rotary_pos_emb 12"),
    "Qwen3": ("Qwen3RMSNorm 24", "Qwen3RMSNorm 12", "Qwen3MLP", "apply_rotary_pos_emb 12"),
    "Phi3": ("Phi3RMSNorm 24", "Phi3MLP", "apply_rotary_pos_emb 12"),
    "Granite": ("GraniteRMSNorm 24", "GraniteMLP", "apply_rotary_pos_emb 12"),
    "SmolLM3": ("SmolLM3RMSNorm 24", "SmolLM3MLP", "apply_rotary_pos_emb 12"),
    "Gemma": ("GemmaRMSNorm 24", "GemmaMLP", "apply_rotary_pos_emb 12"),
    "Gemma2": ("Gemma2RMSNorm 24", "Gemma2MLP", "apply_rotary_pos_emb 12"),
    "Gemma3Text": ("Gemma3RMSNorm 24", "Gemma3RMSNorm 12", "Gemma3MLP", "apply_rotary_pos_emb 12"),
}


def rms_norm(x, weight, eps, offset, casting):
    wide = x.double()
    normed = wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
    if casting == "llama":
        return normed.to(x.dtype) * weight
    return (normed * (offset + weight.double())).to(x.dtype)


def gated(activation, gate, up):
    own = silu(gate.double()) if activation == "silu" else gelu(gate.double(), approximate="tanh")
    return (own * up.double()).to(gate.dtype)


def turned(x, cos, sin):
    width = cos.shape[-1]
    first, second = x[..., : width // 2], x[..., width // 2 : width]
    half = torch.cat((-second, first), -1)
    return torch.cat((x[..., :width] * cos[:, None] + half * sin[:, None], x[..., width:]), -1)


def rotary(q, k, cos, sin):
    return turned(q, cos, sin), turned(k, cos, sin)


STAND_IN = Kernels("stand-in 1", rms_norm, gated, rotary)
"""Written from the papers, in float64: as a kernel of its own would be."""


def model_of(name, dtype=torch.float32):
    config = getattr(transformers, f"{name}Config")(**SETTINGS, pad_token_id=0)
    torch.manual_seed(1)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_norms_rotary_embedding_and_gate_run_by_kernels_and_are_restored(name, dtype):
    model = model_of(name, dtype)
    ids = torch.arange(12)[None]
    before = model(ids, use_cache=False).logits.detach()
    calls = []
    counted = Kernels("counted", *(lambda *x, call=call: calls.append(call) or call(*x) for call in STAND_IN[1:]))
    fused = FusedLayers(model, counted)
    assert fused.problems == {}
    assert set(fused.sorts) == set(FAMILIES[name])
    calls.clear()
    fused.put()
    try:
        with_kernels = model(ids, use_cache=False).logits.detach()
    finally:
        fused.restore()
    assert set(calls) == set(STAND_IN[1:])
    assert float((with_kernels - before).norm() / before.norm()) < (1e-5 if dtype == torch.float32 else 5e-2)
    calls.clear()
    assert torch.equal(model(ids, use_cache=False).logits, before)
    assert not calls


WRONG = {
    "a norm without its eps": ({"rms_norm": lambda x, w, eps, *more: rms_norm(x, w, 0.3, *more)}, "RMSNorm"),
    "a weight that is rounded": (
        {"rms_norm": lambda x, w, *more: rms_norm(x, w.bfloat16().to(w) * 1.004, *more)},
        "RMSNorm",
    ),
    "another activation": ({"gated": lambda _, gate, up: gated("gelu_tanh", gate, up)}, "MLP"),
    "angles the other way": ({"rotary": lambda q, k, cos, sin: rotary(q, k, cos, -sin)}, "apply_rotary"),
    "a gradient of half the size": (
        {"gated": lambda a, gate, up: gated(a, gate, (up + up.detach()) / 2)},
        "MLP",
    ),
    "what is no number": ({"gated": lambda a, gate, up: gated(a, gate, up) * float("nan")}, "MLP"),
    "an error": ({"rotary": lambda *_: (_ for _ in ()).throw(RuntimeError("no kernel image"))}, "apply_rotary"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_kernel_is_left_out_and_noted_and_the_training_goes_on_with_the_others(fault, tmp_path):
    training = reference.training_of("llama", Objective(0.5, parse("forward_kl")), ROWS)
    changed, what = WRONG[fault]
    job = replace(tiny.job(tmp_path), checks=tmp_path / "checks", device_name="a card")
    fused = fused_where_sound(job, training, BUDGET, STAND_IN._replace(**changed))
    try:
        (note,) = job.notes["fused layers"]
        assert what in note
        assert "is not fused by stand-in 1: " in note
        assert fused.fused
        assert len(fused.fused.sorts) == 2
        assert not any(what in sort for sort in fused.fused.sorts)
        _, own = reference.step(training)
        assert reference.relative(reference.step(fused)[1], own) < 1e-5
    finally:
        fused.fused.restore()


def test_kernels_that_are_right_alone_and_wrong_in_a_step_are_all_switched_off(tmp_path):
    training = reference.training_of("llama", CLASS_LOSS, ROWS, has_teacher=False)
    job = replace(tiny.job(tmp_path), checks=tmp_path / "checks", device_name="a card")
    wrong = STAND_IN._replace(
        rotary=lambda q, k, cos, sin: rotary(q, k, cos * (q.shape[0] * q.shape[2] == NUM_TOKENS), sin)
    )
    assert fused_where_sound(job, training, BUDGET, wrong).fused is None
    (note,) = job.notes["fused layers"]
    assert note.startswith("no layer is fused by stand-in 1: a step's gradient differs by ")
    _, grads = reference.step(training)
    again = reference.training_of("llama", CLASS_LOSS, ROWS, has_teacher=False)
    assert reference.relative(grads, reference.step(again)[1]) == 0


def whole_heads_alone(q, k, cos, sin):
    """A kernel that knows heads alone that are turned as a whole, as liger-kernel 0.8.0 does."""
    return tuple(turned(x, *(one.repeat(1, 1, 2)[..., : x.shape[-1]] for one in (cos, sin))) for x in (q, k))


def test_a_rotary_kernel_is_tried_on_heads_of_which_a_part_is_turned_where_the_models_are_such():
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    config = transformers.Phi3Config(**SETTINGS, pad_token_id=0, eos_token_id=1, rope_parameters=rope)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    assert FusedLayers(model, STAND_IN).problems == {}
    assert list(FusedLayers(model, STAND_IN._replace(rotary=whole_heads_alone)).problems) == ["apply_rotary_pos_emb 6"]


def test_a_norm_of_heads_is_tried_on_as_many_rows_as_another_kernel_takes_over_from():
    """liger-kernel's is one kernel below 32,768 rows and another from there on."""

    def wrong_from_there_on(x, *more):
        return rms_norm(x, *more) * (1.01 if x.numel() // x.shape[-1] >= 4096 * 8 else 1.0)

    problems = FusedLayers(model_of("Qwen3"), STAND_IN._replace(rms_norm=wrong_from_there_on)).problems
    assert "Qwen3RMSNorm 12" in problems


class BesideAnother(ranks.Ranks):
    """Of two, the other of which can run no kernel."""

    size = 2

    def gather(self, value):
        assert isinstance(value, tuple), "the other one has nothing to compare, and would not answer"
        return [value, ()]


def test_layers_are_fused_by_all_cards_of_a_stage_or_by_none(tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "_joined", [BesideAnother()])
    training = reference.training_of("llama", CLASS_LOSS, ROWS, has_teacher=False)
    job = replace(tiny.job(tmp_path), checks=tmp_path / "checks", device_name="a card", num_ranks=2)
    assert fused_where_sound(job, training, BUDGET, STAND_IN) is training
    assert job.notes["fused layers"] == [
        "no layer is fused by stand-in 1: the cards of the stage do not all run the same kernels"
    ]


def test_what_was_proven_is_noted_and_the_self_check_says_that_layers_are_fused(tmp_path):
    training = reference.training_of("llama", CLASS_LOSS, ROWS, has_teacher=False)
    job = replace(tiny.job(tmp_path), checks=tmp_path / "checks", device_name="a card")
    fused = fused_where_sound(job, training, BUDGET, STAND_IN)
    try:
        require_sound(job, fused, BUDGET)
        notes = {path.name[:6]: json.loads(path.read_text()) for path in (tmp_path / "checks").glob("*.json")}
        assert len(notes) == 2
        assert notes["fused-"]["difference"] < 1e-5
        assert all(note["fused"] == ["stand-in 1", *fused.fused.sorts] for note in notes.values())
        assert "fused layers" not in job.notes
    finally:
        fused.fused.restore()


def test_a_cpu_runs_the_layers_own_code_whatever_is_installed(tmp_path):
    assert installed_kernels("cpu") is None
    training = reference.training_of("llama", CLASS_LOSS, ROWS, has_teacher=False)
    assert fused_where_sound(tiny.job(tmp_path), training, BUDGET, None) is training


def test_a_family_that_is_not_known_keeps_its_own_code(tmp_path):
    training = reference.training_of("gpt2", CLASS_LOSS, ROWS, has_teacher=False)
    job = replace(tiny.job(tmp_path), checks=tmp_path / "checks", device_name="a card")
    assert fused_where_sound(job, training, BUDGET, STAND_IN) is training
    assert split_model(training.student.model, tiny.VOCABULARY)
    assert "fused layers" not in job.notes


def cost_of(num_layers, is_fused):
    """-> what the layers of a Llama 3.2 1B cost a card, forward and back, with LoRA r64 on six of seven products."""
    shape = {"hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 8}
    config = transformers.LlamaConfig(**shape, num_hidden_layers=num_layers, vocab_size=8)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    model.requires_grad_(False)
    trainable.make_trainable(model, reference.recipe(lora={"rank": 64, "target_modules": SIX}), 0, adapters.Origin())
    replaced = list(replacements(model, COUNTED)) if is_fused else []
    hidden = torch.empty(1, 512, 2048, dtype=torch.bfloat16, device="meta", requires_grad=True)
    places = torch.empty(1, 512, dtype=torch.int64, device="meta")
    turns = model.model.rotary_emb(hidden, places)
    try:
        for one in replaced:
            one.put()
        with counting(model.parameters()) as counts:
            for layer in model.model.layers:
                hidden = layer(hidden, position_embeddings=turns, position_ids=places)
            hidden.backward(torch.empty_like(hidden))
    finally:
        for one in replaced:
            one.restore()
    return counts


def test_a_fused_layer_is_at_most_130_kernels_with_its_way_back():
    kernels, moved, kept = zip(
        *((counts.kernels, counts.bytes_moved, counts.bytes_kept) for counts in (cost_of(1, True), cost_of(2, True))),
        strict=True,
    )
    eager = cost_of(2, False).kernels - cost_of(1, False).kernels
    assert kernels[1] - kernels[0] <= min(130, eager - 60)
    assert (moved[1] - moved[0]) / 512 <= 2.6e6
    assert (kept[1] - kept[0]) / 512 <= 0.14e6
