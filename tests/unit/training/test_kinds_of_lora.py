"""all-linear, patterns, rank-stabilised scale, DoRA and modules_to_save, each beside PEFT itself."""

import json
import re

import peft
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from support import tiny_models as tiny
from support.reference import LENGTHS, PROMPTS, compare, recipe, trained_by_peft, training_of
from torch.nn import functional

from ablate.core.errors import StageError
from ablate.losses import parse
from ablate.study.training_recipes import Lora, Train
from ablate.training import adapters, lora_linear, merging, trainable
from ablate.training.loss import Objective
from ablate.training.step_loss import accumulate

IDS = torch.arange(40).reshape(2, 20) % tiny.VOCABULARY
KD = Objective(0.4, parse("forward_kl"))
ATTENTION = r".*(q|v)_proj|.*\.c_attn"
KINDS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "both": {"use_dora": True, "use_rslora": True},
    "everywhere": {"use_dora": True, "target_modules": "all-linear"},
    "pattern": {"use_rslora": True, "target_modules": [ATTENTION]},
}


def lora_of(family, **settings):
    return Lora(**{"rank": 3, "alpha": 5.0, "target_modules": tiny.targets(family)} | settings)


def moved(family, lora, dtype=torch.float64):
    """-> (a model with adapters that change it, what is trained of it)."""
    model = tiny.make(family, 1).to(dtype)
    weights = trainable.make_trainable(model, Train(lora=lora), 5, adapters.Origin())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in weights.weights.values():
            weight += (0.05 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)).to(weight.dtype)
    weights.update_model()
    return model, weights


def in_peft(family, folder, dtype=torch.float64):
    model = tiny.make(family, 1).to(dtype)
    is_narrow = dtype == torch.bfloat16
    return PeftModel.from_pretrained(model, folder, is_trainable=True, autocast_adapter_dtype=is_narrow).eval()


def logits_and_grads(model, weights):
    logits = model(input_ids=IDS).logits
    functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), IDS[:, 1:].flatten()).backward()
    return logits.detach().double(), {name: weight.grad.double() for name, weight in weights.items()}


def distance(one, other):
    return float((one - other).norm() / other.norm().clamp_min(1e-12))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "phi"])
def test_every_kind_is_pefts_in_value_and_gradient_in_float64(family, kind, tmp_path):
    ours, weights = moved(family, lora_of(family, **{"target_modules": tiny.targets(family)} | KINDS[kind]))
    weights.save(tmp_path)
    theirs = in_peft(family, tmp_path)
    logits, grads = logits_and_grads(ours, weights.weights)
    exact_logits, exact_grads = logits_and_grads(theirs, trained_by_peft(theirs))
    assert distance(logits, exact_logits) < 1e-12
    assert grads.keys() == exact_grads.keys()
    assert max(distance(grads[name], exact_grads[name]) for name in grads if exact_grads[name].norm() > 1e-9) < 1e-11
    merged = tiny.make(family, 1).double()
    merging.merge(merged, [tmp_path])
    assert distance(merged(input_ids=IDS).logits.detach(), exact_logits) < 1e-12
    for name, weight in theirs.merge_and_unload().named_parameters():
        torch.testing.assert_close(merged.get_parameter(name), weight, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dtype", "bar"), [(torch.float32, 2e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_dora_in_the_dtypes_of_training_is_pefts_to_their_rounding(family, dtype, bar, tmp_path):
    ours, weights = moved(family, lora_of(family, use_dora=True, use_rslora=True), dtype)
    assert {weight.dtype for weight in weights.weights.values()} == {torch.float32}
    weights.save(tmp_path)
    theirs = in_peft(family, tmp_path, dtype)
    logits, grads = logits_and_grads(ours, weights.weights)
    exact_logits, exact_grads = logits_and_grads(theirs, trained_by_peft(theirs))
    assert distance(logits, exact_logits) < bar
    assert max(distance(grads[name], exact_grads[name]) for name in grads if exact_grads[name].norm() > 1e-4) < bar


@pytest.mark.parametrize("is_large", [True, False])
def test_a_large_matrix_of_16_bits_is_run_beside_its_adapter_to_the_same(is_large, monkeypatch):
    monkeypatch.setattr(lora_linear, "MAX_SHARE_OF_ADAPTER", 0 if is_large else 1e9)
    ours, _ = moved("llama", lora_of("llama", use_dora=True), torch.bfloat16)
    exact, _ = moved("llama", lora_of("llama", use_dora=True))
    assert distance(ours(input_ids=IDS).logits.double(), exact(input_ids=IDS).logits) < 5e-2


SAVED = {
    "embedding and head": ("llama", ["embed_tokens", "lm_head"], {"use_dora": True}),
    "all that ends in norm": ("llama", ["norm"], {}),
    "layers": ("gpt2", ["ln_f", "mlp"], {"target_modules": "all-linear"}),
    "a head with a bias": ("phi", ["lm_head"], {"use_dora": True}),
}


@pytest.mark.parametrize("case", SAVED)
def test_a_step_with_modules_trained_whole_is_pefts(case, tmp_path):
    family, saved, more = SAVED[case]
    lora = {"rank": 4, "alpha": 6.0, "target_modules": list(tiny.targets(family)), "modules_to_save": saved} | more
    compare(family, KD, tiny.random_rows(LENGTHS, PROMPTS), tmp_path, settings=recipe(family, lora=lora))
    theirs = peft.get_peft_model(tiny.make(family, 1), peft.LoraConfig(
        r=4, target_modules=list(tiny.targets(family)), modules_to_save=saved, task_type="CAUSAL_LM", **_dora(more)
    ))  # fmt: skip
    theirs.save_pretrained(tmp_path / "theirs")
    names = [set(load_file(folder / adapters.WEIGHTS)) for folder in (tmp_path, tmp_path / "theirs")]
    whole = [{name for name in some if "lora" not in name} for some in names]
    assert whole[0] == whole[1]


def _dora(more):
    return {name: value for name, value in more.items() if name == "use_dora"}


@pytest.mark.parametrize("more", [{"use_dora": True}, {"modules_to_save": ["embed_tokens", "lm_head"]}])
def test_gradient_checkpointing_changes_nothing_of_any_kind(more):
    lora = {"rank": 4, "alpha": 6.0, "target_modules": "all-linear"} | more
    grads = []
    for is_checkpointed in (False, True):
        settings = recipe("llama", lora=lora, gradient_checkpointing=is_checkpointed)
        training = training_of("llama", KD, tiny.random_rows(LENGTHS, PROMPTS), settings=settings)
        accumulate(training, training.rows_of(1), 60, "cpu")
        grads.append(torch.cat([weight.grad.flatten() for weight in training.trainable.weights.values()]))
    assert distance(*grads) < 1e-5


class GivenDropout(torch.nn.Module):
    """What is dropped in PEFT's place: the numbers of ours."""

    def __init__(self, ours):
        super().__init__()
        self.ours = ours

    def forward(self, x):
        return x * self.ours._dropout_scale(x)


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_dropout_of_the_same_numbers_gives_what_peft_makes_of_it(family, use_dora, tmp_path):
    ours, weights = moved(family, lora_of(family, use_dora=use_dora, dropout=0.3))
    weights.save(tmp_path)
    theirs = in_peft(family, tmp_path)
    weights.seed_dropout(3, 1, range(len(IDS)), [IDS.shape[1]] * len(IDS))
    for name, adapter in weights.adapters.items():
        layer = theirs.base_model.model.get_submodule(name)
        layer.lora_dropout["default"] = GivenDropout(adapter)
        layer.training = True
    logits, grads = logits_and_grads(ours, weights.weights)
    exact_logits, exact_grads = logits_and_grads(theirs, trained_by_peft(theirs))
    assert distance(logits, exact_logits) < 1e-12
    assert max(distance(grads[name], exact_grads[name]) for name in grads) < 1e-10


def test_doras_norms_are_made_once_until_the_adapter_moves(monkeypatch):
    ours, weights = moved("llama", lora_of("llama", use_dora=True))
    made = []
    make = lora_linear.LoraLinear._make_merged
    monkeypatch.setattr(lora_linear.LoraLinear, "_make_merged", lambda *a: made.append(a) or make(*a))
    ours(input_ids=IDS)
    ours(input_ids=IDS)
    assert len(made) == len(weights.adapters)
    with torch.no_grad():
        weights.adapters["model.layers.0.self_attn.q_proj"].lora_B.mul_(2)
    ours(input_ids=IDS)
    assert len(made) == len(weights.adapters) + 1


def test_an_output_of_zeros_has_no_direction_for_dora_and_is_told():
    model = tiny.make("llama", 1)
    model.get_parameter("model.layers.1.self_attn.q_proj.weight").data[3:5] = 0
    with pytest.raises(StageError, match=r"use_dora: 2 of the outputs of 'model.layers.1.self_attn.q_proj' have"):
        adapters.attach(model, lora_of("llama", use_dora=True), 0)


# which modules


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("targets", ["all-linear", ATTENTION])
def test_modules_are_those_that_peft_chooses(family, targets, tmp_path):
    model = tiny.make(family, 1)
    attached = adapters.attach(model, lora_of(family, target_modules=targets), 0)
    config = peft.LoraConfig(r=3, target_modules=targets, task_type="CAUSAL_LM")
    theirs = peft.get_peft_model(tiny.make(family, 1), config)
    assert sorted(theirs.base_model.targeted_module_names) == sorted(attached)
    adapters.save(tmp_path, attached, lora_of(family, target_modules=targets), adapters.Origin())
    loaded = PeftModel.from_pretrained(tiny.make(family, 1), tmp_path)
    assert sorted(loaded.base_model.targeted_module_names) == sorted(attached)


def test_names_and_patterns_stand_beside_each_other():
    lora = lora_of("llama", target_modules=[r".*layers\.0\..*_proj", "v_proj", "model.layers.1.mlp.up_proj"])
    attached = adapters.attach(tiny.make("llama", 1), lora, 0)
    assert {name for name in attached if ".layers.1." in name} == {
        "model.layers.1.self_attn.v_proj",
        "model.layers.1.mlp.up_proj",
    }
    assert len(attached) == 7 + 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target_modules": "(q|v)_proj"}, r"pattern '\(q\|v\)_proj' matches none of the 15 .* begins with \.\*"),
        ({"target_modules": ["all_linear"]}, "no linear module 'all_linear'. Did you mean 'all-linear'"),
        ({"modules_to_save": ["embed_token"]}, "no module 'embed_token'. Did you mean 'embed_tokens'"),
        ({"modules_to_save": ["layers"]}, "'model.layers' is a list of modules"),
        ({"modules_to_save": ["act_fn"]}, "has no weights to train"),
        ({"modules_to_save": ["mlp", "mlp.up_proj"]}, "is inside another of its modules"),
        ({"target_modules": ["up_proj"], "modules_to_save": ["mlp"]}, "all modules 'up_proj' are trained whole"),
    ],
)
def test_what_a_model_has_not_is_told(settings, words):
    with pytest.raises(StageError, match=words):
        trainable.make_trainable(tiny.make("llama", 1), Train(lora=lora_of("llama", **settings)), 0, adapters.Origin())


@pytest.mark.parametrize(("family", "name"), [("llama_tied", "embed_tokens"), ("gemma2", "lm_head"), ("gpt2", "wte")])
def test_a_module_whose_weights_another_shares_is_not_trained_apart(family, name):
    train = Train(lora=lora_of(family, modules_to_save=[name]))
    with pytest.raises(StageError, match=r"shares its weights with .*lora: none"):
        trainable.make_trainable(tiny.make(family, 1), train, 0, adapters.Origin())


# adapters that PEFT made


def foreign(folder, family="llama", **settings):
    """-> (PEFT's model with an adapter that changes it, saved)."""
    given = {"r": 3, "lora_alpha": 5, "target_modules": list(tiny.targets(family)), "task_type": "CAUSAL_LM"}
    model = peft.get_peft_model(tiny.make(family, 1), peft.LoraConfig(**given | settings))
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True},
        {"use_dora": True},
        {"use_dora": True, "use_rslora": True, "modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 5}, "alpha_pattern": {r"layers\.1\.mlp\.down_proj": 11}},
        {"layers_to_transform": [1]},
        {"target_modules": "all-linear", "exclude_modules": ["up_proj"]},
        {"init_lora_weights": "gaussian"},
    ],
)
def test_an_adapter_that_peft_made_is_merged_as_peft_merges_it(settings, tmp_path):
    exact = foreign(tmp_path, **settings).merge_and_unload()
    model = tiny.make("llama", 1)
    merging.merge(model, [tmp_path])
    for name, weight in exact.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bias": "all"}, "settings say bias: 'all'"),
        ({"bias": "lora_only"}, "settings say bias: 'lora_only'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: 'pissa'"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 2], [0, 2]]}, "layer_replication"),
        ({"target_parameters": ["model.norm.weight"]}, "target_parameters"),
    ],
)
def test_an_adapter_whose_settings_cannot_be_merged_is_refused_by_their_name(settings, words, tmp_path):
    foreign(tmp_path, **{name: value for name, value in settings.items() if name == "bias"})
    config = tmp_path / adapters.CONFIG
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    with pytest.raises(StageError, match=re.escape(words)) as caught:
        merging.merge(tiny.make("llama", 1), [tmp_path])
    assert "merge_and_unload" in str(caught.value)


def _drop(part):
    return lambda weights: {name: weight for name, weight in weights.items() if part not in name}


BROKEN = {
    "half of it": (_drop("0.self_attn.q_proj.lora_B"), "lora_A and no lora_B: half of an adapter"),
    "the other half": (_drop("0.self_attn.q_proj.lora_A"), "lora_B.weight' is no part of an adapter"),
    "no magnitudes": (_drop("lora_magnitude_vector"), "use_dora is True, and lora_magnitude_vector does not fit"),
    "no saved module": (_drop("lm_head"), "modules_to_save has 'lm_head', of which there are no weights"),
    "a stranger": (lambda weights: weights | {"base_model.model.model.x": torch.ones(2)}, "'model.x' is no part"),
    "a narrow head": (
        lambda weights: {name: w[:, :3].contiguous() if "lm_head" in name else w for name, w in weights.items()},
        "'lm_head.weight' of shape (64, 3), LlamaForCausalLM has one of shape (64, 24)",
    ),
    "another rank": (
        lambda weights: {name: w[:2].contiguous() if "lora_A" in name else w for name, w in weights.items()},
        "its rank is to be 3",
    ),
    "another width": (
        lambda weights: {name: w[:, :9].contiguous() if "lora_A" in name else w for name, w in weights.items()},
        "cannot be merged on LlamaForCausalLM: the adapter of model.layers",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_adapter_whose_tensors_do_not_fit_its_settings_is_refused(case, tmp_path):
    change, words = BROKEN[case]
    foreign(tmp_path, use_dora=True, modules_to_save=["lm_head"])
    save_file(change(load_file(tmp_path / adapters.WEIGHTS)), tmp_path / adapters.WEIGHTS)
    with pytest.raises(StageError, match=re.escape(words)):
        merging.merge(tiny.make("llama", 1), [tmp_path])


def test_a_foreign_adapter_that_parts_tied_weights_is_refused(tmp_path):
    foreign(tmp_path, "llama_tied", modules_to_save=["embed_tokens"])
    with pytest.raises(StageError, match="shares its weights with 'lm_head'"):
        merging.merge(tiny.make("llama_tied", 1), [tmp_path])
