"""A step on given answers against TRL's own code; where TRL departs from the paper, by exactly what.

TRL is in the `bench` extra. GKD and the distillation trainer: TRL 1.16; MiniLLM: 1.14.2 was the last with it.
"""

import os
from functools import partial
from types import SimpleNamespace

import pytest
import torch

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
pytest.importorskip("trl", reason="TRL is in the bench extra")

from datasets import Dataset
from support import tiny_models as tiny
from support.reference import LENGTHS, PROMPTS, recipe, relative
from transformers import PreTrainedTokenizerFast
from trl.experimental.gkd import GKDTrainer

from ablate.losses import parse
from ablate.losses.spans import Common, SpanTokens
from ablate.study.policy import Policy
from ablate.training import adapters, trainable
from ablate.training.batches import StepRows
from ablate.training.head import Head
from ablate.training.loss import Objective, fused_loss
from ablate.training.model_parts import split_model
from ablate.training.step_loss import accumulate
from ablate.training.teacher_outputs import TeacherHidden
from ablate.training.training import Training

V = tiny.SMALL["vocab_size"]
"""TRL takes logits as they come, with the rows of a head that belong to no token."""
BETAS = {0.0: "forward_kl", 1.0: "reverse_kl", 0.3: {"name": "jsd", "beta": 0.3}}
"""TRL's beta -> ours: it weighs the teacher in both."""


def training_of(objective, rows):
    """-> a training of every weight, all of whose answers the student wrote."""
    student, teacher = tiny.make("llama", 1), tiny.make("llama", 2)
    weights = trainable.make_trainable(student, recipe(lora=None), 0, adapters.Origin())
    parts = split_model(student, V), split_model(teacher, V)
    return Training(recipe(lora=None), 0, rows, parts[0], weights, objective, objective, parts[1])


def ours(objective, rows):
    """-> (KD loss, gradients by name), means over the tokens."""
    training = training_of(objective, rows)
    every = tuple(range(len(rows)))
    sums = accumulate(training, StepRows(1, rows, every, frozenset(every)), 40, "cpu").own
    num_tokens = int(rows.num_loss.sum())
    grads = {name: weight.grad / num_tokens for name, weight in training.trainable.weights.items()}
    return sums.kd_loss / num_tokens, grads


def padded(rows):
    """-> rows as TRL's collators lay them: ids, attention mask, labels that are -100 where nothing counts."""
    width = int(rows.lengths.max())
    ids, mask = torch.zeros(2, len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    for row in range(len(rows)):
        tokens, counts = (torch.tensor(part.tolist()) for part in rows.row(row))
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        labels[row, : len(tokens)] = tokens.where(counts.bool(), -100)
    labels[:, 0] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def backward(model, loss):
    loss.backward()
    return float(loss.detach()), {name: weight.grad for name, weight in model.named_parameters()}


def require_alike(mine, theirs):
    assert mine[0] == pytest.approx(theirs[0], rel=1e-5)
    assert relative(mine[1], theirs[1]) < 1e-5


@pytest.mark.parametrize("beta", BETAS)
def test_a_step_is_trls_gkd_step(beta):
    rows = tiny.random_rows(LENGTHS, PROMPTS)
    model, teacher = tiny.make("llama", 1), tiny.make("llama", 2)
    trainer = SimpleNamespace(teacher_model=teacher, beta=beta, generalized_jsd_loss=GKDTrainer.generalized_jsd_loss)
    theirs = backward(model, GKDTrainer.compute_loss(trainer, model, padded(rows)))
    require_alike(ours(Objective(1.0, parse(BETAS[beta])), rows), theirs)


@pytest.mark.parametrize("beta", BETAS)
def test_at_a_temperature_it_is_trls_loss_without_the_square(beta):
    """GKDTrainer.compute_loss (TRL 1.16, trl/experimental/gkd/gkd_trainer.py) passes no temperature on to its loss."""
    rows = tiny.random_rows(LENGTHS, PROMPTS)
    model, teacher, inputs = tiny.make("llama", 1), tiny.make("llama", 2), padded(rows)
    with torch.no_grad():
        teacher_logits = teacher(input_ids=inputs["input_ids"]).logits[:, :-1]
    logits = model(input_ids=inputs["input_ids"]).logits[:, :-1]
    labels = inputs["labels"][:, 1:]
    loss = GKDTrainer.generalized_jsd_loss(logits, teacher_logits, labels, beta=beta, temperature=2.0)
    require_alike(ours(Objective(1.0, parse(BETAS[beta]), 2.0), rows), backward(model, loss))


@pytest.mark.parametrize("beta", BETAS)
def test_a_loss_is_that_of_trls_distillation_trainer(beta):
    pytest.importorskip("trl", minversion="1.16")
    from trl.trainer.distillation_trainer import _chunked_divergence_loss as chunked

    generator = torch.Generator().manual_seed(0)
    student_MD, teacher_MD = torch.randn(2, 30, 8, generator=generator)
    student_VD, teacher_VD = torch.randn(2, 40, 8, generator=generator)
    leaf_MD = student_MD.clone().requires_grad_()
    mask = torch.ones(1, 30)
    loss, *_ = chunked(leaf_MD[None], teacher_MD[None], student_VD, teacher_VD, mask, beta, temperature=2.0)
    loss.backward()
    heads = [Head(weight, len(weight)) for weight in (student_VD, teacher_VD)]
    teacher = TeacherHidden(teacher_MD, heads[1])
    objective = Objective(1.0, parse(BETAS[beta]), 2.0)
    mine = fused_loss(objective, student_MD, heads[0], torch.zeros(30, dtype=torch.long), teacher)
    assert float(mine.sums.kd_loss) / 30 == pytest.approx(float(loss), rel=1e-5)
    torch.testing.assert_close(mine.grad_MD / 30, leaf_MD.grad, rtol=1e-5, atol=1e-7)


STUDENT_ENDS, TEACHER_ENDS = [2, 3, 7, 9, 10, 12], [1, 3, 4, 7, 8, 10, 12]
"""Bytes at which the tokens of one text end."""


def groups():
    """-> tokens of both between bytes where both have a border, by TRL's own walk."""
    from trl.experimental.gold.gold_trainer import ULDLoss

    offsets = [list(zip([0, *ends], ends, strict=False)) for ends in (STUDENT_ENDS, TEACHER_ENDS)]
    return ULDLoss._align_by_byte_offsets(*offsets)


@pytest.mark.parametrize("common_weight", [None, 0.7])
@pytest.mark.parametrize("num_common", [0, 4])
def test_gold_over_given_spans_is_trls_hybrid_loss(num_common, common_weight):
    """ULDLoss with uld_use_hybrid_loss and beta 0, `token_merge_strategy` observed; its spans' mean is ours."""
    gold = pytest.importorskip("trl.experimental.gold.gold_trainer")
    if not hasattr(gold.ULDLoss, "_merge_probabilities_with_alignment_groups"):
        pytest.skip("another TRL's GOLD")
    generator = torch.Generator().manual_seed(3)
    logits = [torch.randn(len(ends), v, generator=generator) for ends, v in ((STUDENT_ENDS, 9), (TEACHER_ENDS, 11))]
    labels = [torch.randint(x.shape[1], (len(x),), generator=generator) for x in logits]
    ids = torch.arange(num_common)
    mapping = {int(teacher): int(student) for teacher, student in zip(ids + 3, ids * 2, strict=True)}
    theirs = SimpleNamespace(
        token_merge_strategy="observed",
        beta=0.0,
        _teacher_matched_ids=set(mapping),
        mapping_tensor=torch.tensor([mapping.get(token, -1) for token in range(11)]),
        hybrid_matched_weight=common_weight,
        hybrid_unmatched_weight=None if common_weight is None else 1 - common_weight,
    )
    theirs._compute_jsd_loss_for_matched_tokens = partial(gold.ULDLoss._compute_jsd_loss_for_matched_tokens, theirs)
    leaf = logits[0].clone().requires_grad_()
    merge = gold.ULDLoss._merge_probabilities_with_alignment_groups
    merged = [
        merge(theirs, x.softmax(1), group, label)
        for x, group, label in zip((leaf, logits[1]), groups(), labels, strict=True)
    ]
    loss = gold.ULDLoss._compute_hybrid_uld_loss(theirs, *merged)
    (grad,) = torch.autograd.grad(loss, leaf)
    begins = [torch.tensor([group[0] for group in one]) for one in groups()]
    mine = logits[0].clone().requires_grad_()
    sides = [SpanTokens(*parts) for parts in zip((mine, logits[1]), labels, begins, strict=True)]
    ours = parse({"name": "gold", "common_weight": common_weight}).over_spans(*sides, Common(ids * 2, ids + 3)).mean()
    torch.testing.assert_close(ours, loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.autograd.grad(ours, mine)[0], grad, rtol=1e-4, atol=1e-6)


# MiniLLM: answers of one length, since TRL's mask (`shifted_labels != -100`, of labels that are the ids themselves)
# counts padding as if it had been written

PROMPT, LENGTH, NUM_ROWS = 4, 6, 5


def given_answers():
    return tiny.random_rows([PROMPT + LENGTH] * NUM_ROWS, [PROMPT] * NUM_ROWS)


def minillm(tmp_path, *, is_detached=True, **settings):
    """-> (loss, gradients) of MiniLLMTrainer's loss on given answers.

    `is_detached`: with an advantage that is a constant, as a policy gradient's is.
    """
    module = pytest.importorskip("trl.experimental.minillm", reason="TRL 1.14.2 was the last with MiniLLM")
    model, rows = tiny.make("llama", 1), given_answers()
    config = module.MiniLLMConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        report_to="none",
        num_generations=1,
        loss_type="bnpo",
        per_device_train_batch_size=NUM_ROWS,
        gradient_checkpointing=False,
        **settings,
    )
    trainer = module.MiniLLMTrainer(
        model=model,
        teacher_model=tiny.make("llama", 2),
        args=config,
        processing_class=tokenizer(),
        train_dataset=Dataset.from_dict({"prompt": ["a"] * NUM_ROWS}),
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    advantage = trainer._compute_advantage
    if is_detached:
        trainer._compute_advantage = lambda **inputs: advantage(**inputs).detach()
    ids = padded(rows)["input_ids"]
    parts = {"prompt": ids[:, :PROMPT], "completion": ids[:, PROMPT:]}
    inputs = {f"{name}_ids": part for name, part in parts.items()}
    inputs |= {f"{name}_mask": torch.ones_like(part) for name, part in parts.items()}
    inputs |= {"advantages": torch.zeros(NUM_ROWS), "num_items_in_batch": torch.tensor(NUM_ROWS * LENGTH)}
    return backward(model, trainer.compute_loss(model, inputs))


def tokenizer():
    made = tiny.tokenizer(pad="<bos>")
    assert isinstance(made, PreTrainedTokenizerFast)
    made.padding_side = "left"
    return made


def by_policy(discount, *, is_exact, normalize_length=False):
    policy = Policy(discount, is_exact, normalize_length, None)
    return ours(Objective(1.0, parse("reverse_kl"), policy=policy), given_answers())


def test_without_an_advantage_trls_minillm_is_the_exact_single_step(tmp_path):
    """single_step_decomposition: true, rkl_advantage: false -> single_step: exact, discount: 0."""
    theirs = minillm(tmp_path, rkl_advantage=False)
    require_alike(by_policy(0.0, is_exact=True), theirs)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_without_its_decomposition_trls_minillm_is_the_sampled_estimate(gamma, tmp_path):
    """gamma -> discount, single_step_decomposition: false -> single_step: sampled."""
    theirs = minillm(tmp_path, gamma=gamma, single_step_decomposition=False, length_normalization=False)
    assert relative(by_policy(gamma, is_exact=False)[1], theirs[1]) < 1e-5


def test_trls_minillm_counts_a_tokens_own_reward_twice(tmp_path):
    """Gu et al. 2023, section 2.2: beside the single step, R_(t+1) alone; TRL (`_compute_advantage`: the sum from t on)
    adds R_t, as the authors' code does (minillm/losses.py, `_get_advantages_and_returns`)."""
    _, theirs = minillm(tmp_path, gamma=1.0, length_normalization=False)
    paper, again = by_policy(1.0, is_exact=True)[1], by_policy(0.0, is_exact=False)[1]
    assert relative({name: paper[name] + again[name] for name in paper}, theirs) < 1e-5
    assert relative(paper, theirs) > 0.1


def test_trls_minillm_differentiates_its_advantage_as_well(tmp_path):
    """`compute_loss` detaches no log-probability, so that - A_t, whose mean gradient is 0, is lowered beside it."""
    settings = {"gamma": 1.0, "single_step_decomposition": False, "length_normalization": False}
    _, theirs = minillm(tmp_path / "as it is", is_detached=False, **settings)
    _, paper = minillm(tmp_path / "detached", **settings)
    model, ids = tiny.make("llama", 1), padded(given_answers())["input_ids"]
    logq = model(input_ids=ids).logits[:, PROMPT - 1 : -1].log_softmax(-1).gather(2, ids[:, PROMPT:, None])[..., 0]
    num_advantages = torch.arange(1, LENGTH + 1)  # that hold the reward of each token
    _, beside = backward(model, (logq * num_advantages).mean())
    assert relative({name: paper[name] + beside[name] for name in paper}, theirs) < 1e-5
    assert relative(paper, theirs) > 0.1


def test_trls_minillm_discounts_from_the_answers_beginning(tmp_path):
    """`advantages = rewards * gamma_pow`, summed from t on, is gamma^t times what its docstring says."""
    settings = {"single_step_decomposition": False, "length_normalization": False}
    _, theirs = minillm(tmp_path, gamma=0.5, **settings)
    assert relative(by_policy(0.5, is_exact=False)[1], theirs) > 0.1
