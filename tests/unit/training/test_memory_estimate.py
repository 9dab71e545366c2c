"""What a stage is thought to hold of a card, against an allocator that follows every storage."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import transformers
from support import judged_memory as judged
from support import judged_teachers
from support import tiny_models as tiny

from ablate.store.sizes import model_sizes as model_sizes_in_files
from ablate.study.training_recipes import Distill, Train
from ablate.training import adapters, trainable
from ablate.training.asked_teachers import live_outputs
from ablate.training.card_room import model_sizes
from ablate.training.features import make_features
from ablate.training.holdout import holdout_losses
from ablate.training.layer_shapes import num_trained
from ablate.training.loss import CLASS_LOSS, Scratch
from ablate.training.memory_estimate import NOTHING, Beside, TrainingMemory
from ablate.training.model_parts import split_model
from ablate.training.training import Training

WIDER = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
OTHERS = {
    "gpt2": {"n_embd": 128, "n_layer": 3, "n_head": 4, "n_positions": 256},
    "phi": WIDER | {"num_key_value_heads": 4},
    "gemma2": WIDER | {"head_dim": 32},
}
WAYS = {
    "lora": {"lora": {"target_modules": "all-linear", "rank": 8}},
    "dora": {"lora": {"target_modules": "all-linear", "rank": 8, "use_dora": True}},
    "all weights": {"lora": None},
    "checkpointing": {"lora": {"target_modules": "all-linear", "rank": 8}, "gradient_checkpointing": True},
}
ROWS = [250] * 4


def wide_model(family):
    name, settings = tiny.FAMILIES[family]
    config = getattr(transformers, name)(**settings | OTHERS.get(family, WIDER))
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "gemma2", "cohere", "phi"])
def test_a_training_holds_what_is_estimated(family, way):
    model, recipe = wide_model(family), Train.model_validate(WAYS[way])
    sizes = judged.sizes(model)
    weights = trainable.make_trainable(model, recipe, 0, adapters.Origin())
    assert num_trained(sizes, recipe.lora) == sum(weight.numel() for weight in weights.weights.values())
    parts = split_model(model, tiny.VOCABULARY)
    training = Training(recipe, 0, tiny.random_rows(ROWS), parts, weights, CLASS_LOSS)
    memory = TrainingMemory(recipe, sizes, "float32").at(sum(ROWS), max(ROWS))
    assert memory.total - memory.context == pytest.approx(judged.two_steps(training, device="cpu").peak, rel=0.15)


FEW = {"num_hidden_layers": 2}
"""Of a model's own: what a training holds beside the weights is then as much as these."""
REAL = {
    "Llama 1B": (judged.LLAMA_1B | FEW, "Llama"),
    "Llama 3B": (judged.LLAMA_3B | FEW, "Llama"),
    "Llama 8B": (judged.LLAMA_8B | FEW, "Llama"),
    "Qwen 0.5B": (judged.QWEN_05B, "Qwen2"),
    "Llama 1B, whole": (judged.LLAMA_1B, "Llama"),
}
SOAK = pytest.mark.soak


def real(name, *, is_packed=False, dtype=torch.bfloat16):
    shape, kind = REAL[name]
    return judged.parts(judged.meta_model(shape, kind, dtype), is_packed=is_packed)


def require_held(training, tokens, beside=NOTHING):
    """The estimate is within 15 % of what two steps hold, in micro-batches of one row.

    -> the estimate, and what was held; both beside what was there before.
    """
    dtype = str(training.student.model.dtype).removeprefix("torch.")
    row = int(training.rows.lengths.max())
    memory = TrainingMemory(training.recipe, model_sizes(training.student.model), dtype, beside).at(tokens, row)
    held = judged.two_steps(training, budget=tokens)
    assert memory.needed == pytest.approx(held.peak, rel=0.15)
    return memory.needed - held.given, held.peak - held.given


LENGTHS = [2048, pytest.param(256, marks=SOAK), pytest.param(8192, marks=SOAK)]


@pytest.mark.parametrize("is_packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("tokens", [256, *LENGTHS[:1], *LENGTHS[2:]])
@pytest.mark.parametrize("model", ["Llama 1B", "Llama 8B", *(pytest.param(name, marks=SOAK) for name in REAL)])
def test_of_real_shapes_in_bfloat16_too(model, tokens, is_packed):
    training = judged.meta_training(Train(), real(model, is_packed=is_packed), rows=[tokens])
    estimate, held = require_held(training, tokens)
    assert estimate == pytest.approx(held, rel=0.15)


EXPERTS = judged.QWEN_05B | {"vocab_size": 4096, "num_hidden_layers": 4, "num_experts_per_tok": 2}
MIXTURES = {
    "mixtral": ("Mixtral", EXPERTS | {"num_local_experts": 4}),
    "shared expert": ("Qwen2Moe", EXPERTS | {"num_experts": 8, "shared_expert_intermediate_size": 2048}),
    "granite": ("GraniteMoe", EXPERTS | {"num_local_experts": 4}),
}


@pytest.mark.parametrize("way", ["lora", "checkpointing", "all weights"])
@pytest.mark.parametrize("family", MIXTURES)
def test_of_experts_as_many_as_a_token_is_sent_to(family, way):
    kind, shape = MIXTURES[family]
    student, recipe = judged.parts(judged.meta_model(shape, kind), is_packed=True), Train.model_validate(WAYS[way])
    require_held(judged.meta_training(recipe, student, rows=[4096]), 4096)


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "fc1")], ids=["all", "few"])
def test_of_an_activation_that_keeps_what_the_next_product_does(targets):
    shape = {"vocab_size": 4096, "hidden_size": 512, "ffn_dim": 2048, "num_hidden_layers": 4, "num_attention_heads": 8}
    shape |= {"word_embed_proj_dim": 512, "max_position_embeddings": 4096}
    student = judged.parts(judged.meta_model(shape, "OPT"), is_packed=True)
    recipe = Train.model_validate({"lora": {"rank": 16, "target_modules": targets}})
    require_held(judged.meta_training(recipe, student, rows=[4096]), 4096)


def test_experts_that_files_have_one_by_one_hold_what_they_do_once_loaded(tmp_path):
    config = transformers.MixtralConfig(**tiny.SMALL | {"num_local_experts": 4, "num_experts_per_tok": 3})
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    in_files, loaded = model_sizes_in_files(tmp_path), model_sizes(model)
    assert any(".experts.3.w2." in tensor.name for tensor in in_files.tensors)
    recipe = Train.model_validate(WAYS["lora"])
    assert TrainingMemory(recipe, in_files, "float32").at(99, 9) == TrainingMemory(recipe, loaded, "float32").at(99, 9)


LORAS = {
    "few modules": {"target_modules": ["q_proj", "v_proj"]},
    "all modules": {"target_modules": "all-linear", "rank": 256},
    "dropout": {"dropout": 0.1},
    "DoRA": {"use_dora": True},
    "DoRA with dropout": {"use_dora": True, "dropout": 0.1},
}


WITH_DROPOUT = [kind for kind in LORAS if "dropout" in kind]
"""Which draw a number for each number of every module's input, on the CPU."""


@pytest.mark.parametrize(
    ("kind", "tokens"),
    [
        *((kind, 256 if kind in WITH_DROPOUT else 2048) for kind in LORAS),
        *(pytest.param(kind, 8192, marks=SOAK) for kind in LORAS),
    ],
)
def test_whatever_is_adapted_and_how(kind, tokens):
    recipe, student = (
        Train.model_validate({"lora": LORAS[kind]}),
        real("Llama 1B, whole" if kind == "DoRA" else "Llama 1B"),
    )
    estimate, held = require_held(judged.meta_training(recipe, student, rows=[tokens]), tokens)
    assert estimate == pytest.approx(held, rel=0.15)


@pytest.mark.parametrize("way", [{"gradient_checkpointing": True}, {"lora": None}])
@pytest.mark.parametrize("tokens", LENGTHS)
def test_checkpointed_and_of_all_weights_too(way, tokens):
    recipe = Train.model_validate(way)
    require_held(judged.meta_training(recipe, real("Llama 1B"), rows=[tokens, tokens]), tokens)


@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.float32, marks=SOAK)])
def test_in_other_widths_too(dtype):
    student, teacher = real("Llama 1B", dtype=dtype), real("Llama 8B", dtype=dtype)
    require_held(judged.meta_training(Distill(), student, teacher, [1024]), 1024, live(teacher))


def live(*teachers):
    """What stands beside a student that these models teach."""
    sizes = tuple(judged.sizes(teacher.model) for teacher in teachers)
    return Beside(sizes, output_bytes=sum(size.hidden for size in sizes) * 2)


LOSSES = ["forward_kl", *(pytest.param(name, marks=SOAK) for name in ("reverse_kl", "jsd", "tvd"))]


@pytest.mark.parametrize("heat", [1.0, pytest.param(2.0, marks=SOAK)])
@pytest.mark.parametrize("loss", [*LOSSES, "adaptive_skew_forward_kl"])
@pytest.mark.parametrize("tokens", LENGTHS)
def test_beside_a_live_teacher_under_every_kind_of_loss(loss, tokens, heat):
    recipe = Distill.model_validate({"loss": loss, "temperature": heat})
    student, teacher = real("Llama 1B"), real("Llama 8B")
    require_held(judged.meta_training(recipe, student, teacher, [tokens]), tokens, live(teacher))


@pytest.mark.parametrize("form", ["vector", "hidden", "top_k"])
@pytest.mark.parametrize("heat", [1.0, pytest.param(2.0, marks=SOAK)])
@pytest.mark.parametrize("tokens", LENGTHS)
def test_from_every_form_of_cache(form, tokens, heat):
    recipe = Distill.model_validate({"temperature": heat} | ({"teacher_top_k": 64} if form == "top_k" else {}))
    student, rows = real("Llama 1B"), judged.tiny.random_rows([tokens])
    cache = judged_teachers.kept(form, rows, student, 4096)
    heads = cache.head.weight.numel() if cache.head else 0
    beside = Beside(heads=heads, output_bytes=cache.token_bytes, kept=form)
    require_held(judged.meta_training(recipe, student, cache, rows), tokens, beside)


@pytest.mark.parametrize("mean", ["probabilities", "losses"])
@pytest.mark.parametrize("tokens", LENGTHS)
def test_of_several_teachers(mean, tokens):
    recipe = Distill.model_validate({"teachers": [{"pair": "a"}, {"pair": "b"}], "teacher_mean": mean})
    student, teachers = real("Llama 1B"), (real("Llama 8B"), real("Llama 3B"))
    asked = judged_teachers.several(*teachers, mean=mean)
    require_held(judged.meta_training(recipe, student, asked, [tokens]), tokens, live(*teachers))


@pytest.mark.parametrize("features", [{"name": "cosine"}, pytest.param({"name": "mse", "layers": "last"}, marks=SOAK)])
@pytest.mark.parametrize("tokens", LENGTHS)
def test_with_a_loss_on_hidden_states(features, tokens):
    recipe, student, teacher = Distill.model_validate({"features": features}), real("Llama 1B, whole"), real("Llama 8B")
    compared = make_features(recipe.features, teacher, student, 0)
    beside = replace(live(teacher), projections=compared.projection_TS.numel(), states=compared.held)
    training = judged.meta_training(recipe, student, teacher, [tokens], compared)
    estimate, held = require_held(training, tokens, beside)
    assert estimate == pytest.approx(held, rel=0.15)


@pytest.mark.parametrize("loss", ["dskd", "gold", pytest.param("uld", marks=SOAK)])
@pytest.mark.parametrize("tokens", LENGTHS)
def test_of_a_teacher_with_another_tokenizer(loss, tokens):
    recipe, student, teacher = Distill.model_validate({"loss": loss}), real("Llama 1B"), real("Llama 8B")
    rows = judged.tiny.random_rows([tokens])
    asked = judged_teachers.in_own_tokens(teacher, student, rows, loss)
    projections = sum(map(torch.Tensor.numel, getattr(asked, "weights", {}).values()))
    beside = replace(live(teacher), projections=projections)
    require_held(judged.meta_training(recipe, student, asked, rows), tokens, beside)


def test_held_out_rows_take_no_more_than_a_step_in_which_all_that_can_has_given_way():
    student, teacher, scratch = real("Llama 1B"), real("Llama 8B"), Scratch(logit_bytes=1)
    recipe = Distill.model_validate({"gradient_checkpointing": True})
    step = TrainingMemory(recipe, judged.sizes(student.model), "bfloat16", live(teacher)).at(512, 512, is_least=True)
    rows = judged.tiny.random_rows([512] * 2)
    with judged.judging(judged.weights_of(student, teacher)) as held:
        holdout_losses(student, rows, 512, "meta", partial(live_outputs, teacher), scratch=scratch)
    assert held.peak - held.given <= step.beside_weights
