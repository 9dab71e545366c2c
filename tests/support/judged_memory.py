"""Stages of real shapes on the meta device, and what an allocator that follows every storage says that they hold."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor

from ablate.data.tokens import TokenRows
from ablate.store.sizes import ModelSizes, TensorShape, sizes_of
from ablate.study.training_recipes import Distill, Train
from ablate.training import adapters, asked_teachers, attention, batches, trainable
from ablate.training.asked_teachers import AskedTeacher
from ablate.training.dual_space import DualSpaceTeacher
from ablate.training.features import Features
from ablate.training.head import make_head
from ablate.training.loss import CLASS_LOSS, objective
from ablate.training.model_parts import ModelParts
from ablate.training.optimizer import Optimizer
from ablate.training.projections import WithProjections
from ablate.training.step_loss import accumulate
from ablate.training.training import Training
from support import tiny_models as tiny
from support.allocations import Allocations, allocations
from support.counts import card_attention
from support.made_up import MadeUp

LLAMA_1B = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
LLAMA_3B = LLAMA_1B | {
    "hidden_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "head_dim": 128,
}
LLAMA_8B = LLAMA_1B | {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "head_dim": 128,
    "tie_word_embeddings": False,
}
LLAMA_70B = LLAMA_8B | {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
}
QWEN_05B = {
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


def meta_model(shape: dict[str, Any], kind: str = "Llama", dtype: torch.dtype = torch.bfloat16) -> Any:
    """-> a causal model without numbers."""
    config = getattr(transformers, f"{kind}Config")(**shape)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    attention.take_over(model)
    return model


def sizes(model: Any) -> ModelSizes:
    """-> as they are read from a model's files."""
    shapes = [TensorShape(name, tuple(weight.shape)) for name, weight in model.named_parameters()]
    known = sizes_of(model.config.to_dict(), shapes)
    assert known
    return known


def meta_training(
    recipe: Train,
    student: ModelParts,
    teacher: AskedTeacher | None = None,
    rows: TokenRows | Sequence[int] = (1024,),
    features: Features | None = None,
) -> Training:
    """-> a training whose step reads all rows. `rows`: or their lengths."""
    with MadeUp():
        weights: Any = trainable.make_trainable(student.model, recipe, 0, adapters.Origin())
    if isinstance(teacher, DualSpaceTeacher):
        weights = WithProjections(weights, teacher.weights)
    if features and features.trained:
        weights = WithProjections(weights, features.trained)
    return Training(
        recipe=recipe,
        seed=0,
        rows=rows if isinstance(rows, TokenRows) else tiny.random_rows([*rows]),
        student=student,
        trainable=weights,
        objective=objective(recipe) if isinstance(recipe, Distill) else CLASS_LOSS,
        teacher=teacher,
        features=features,
    )


def parts(model: Any, *, is_packed: bool = False) -> ModelParts:
    """-> a model cut in two without a look at its numbers. `is_packed`: its rows stand one after the other."""
    model.requires_grad_(False)
    head = model.get_output_embeddings()
    cap = getattr(model.config, "final_logit_softcapping", None)
    return ModelParts(model, make_head(head.weight, head.bias, head.weight.shape[0], 1.0, cap), is_packed)


@contextlib.contextmanager
def judging(known: Iterable[Tensor]) -> Iterator[Allocations]:
    """-> what is allocated meanwhile on a card's path, beside tensors that are there."""
    with card_attention(), allocations(known) as held, MadeUp():
        yield held


def weights_of(*models: ModelParts) -> list[Tensor]:
    return [tensor for one in models for tensor in (*one.model.parameters(), *one.model.buffers())]


def two_steps(training: Training, budget: int = 1 << 20, device: str = "meta") -> Allocations:
    """-> what was allocated in two optimizer steps, all that is loaded included."""
    teachers = filter(None, map(asked_teachers.beside, asked_teachers.each(training.teacher)))
    loaded = weights_of(training.student, *teachers)
    for cache in asked_teachers.kept(training.teacher):
        loaded += [cache.head.weight] if cache.head else []
    with judging([*loaded, *training.trainable.weights.values()]) as held:
        optimizer = Optimizer(training.trainable.weights, training.recipe)
        for _ in range(2):
            training.trainable.discard_grads()
            rows = batches.StepRows(1, training.rows, tuple(range(len(training.rows))))
            accumulate(training, rows, budget, device)
            optimizer.adamw.step()
            training.trainable.update_model()
    return held
