"""Losses between a byte-level student and a SentencePiece-like teacher, against dense references in float64."""

import math
from dataclasses import replace
from functools import partial
from itertools import accumulate

import pytest
import torch
from safetensors.torch import load_file
from support import reference
from support import tiny_models as tiny
from support.two_tokenizers import CORPUS, byte_level, metaspace, model, num_bytes, rows_of
from torch.nn.functional import cross_entropy, linear

from ablate.core.errors import StageError
from ablate.data.masks import TokenRow
from ablate.data.tokens import lay
from ablate.losses import parse
from ablate.store.job import MetricsLog, read_metrics
from ablate.training import adapters, loss_chunks, trainable
from ablate.training.dual_space import DualSpaceTeacher, new_projections
from ablate.training.giving_way import ORDER, gave_way, give_way, held, next_change, training_memory
from ablate.training.loss import Objective
from ablate.training.model_parts import split_model
from ablate.training.own_tokens_teacher import Reader
from ablate.training.projections import WithProjections
from ablate.training.span_teacher import make_span_teacher
from ablate.training.train import train
from ablate.training.training import Training

OURS, THEIRS = byte_level(), metaspace()
LOSSES = ("gold", "uld", "dskd")
TEXTS = (*CORPUS, "🙂 日本語 e\u0301", "x")


def training_of(
    loss, temperature=1.0, kd_ratio=0.5, teacher=THEIRS, scale_by_t2=False, dtype=torch.float32, texts=TEXTS, **settings
):
    """-> a student all of whose weights are trained, beside a teacher with a tokenizer of its own."""
    student, recipe = model(OURS, 1).to(dtype), reference.recipe(lora=None, batch_size=len(texts))
    rows, their_rows = rows_of(OURS, texts), rows_of(teacher, texts)
    weights = trainable.make_trainable(student, recipe, 5, adapters.Origin())
    ours, theirs = split_model(student, len(OURS)), split_model(model(teacher, 2, 32).to(dtype), len(teacher))
    objective = Objective(kd_ratio, parse({"name": loss} | settings), temperature, scale_by_t2)
    training = Training(recipe=recipe, seed=5, rows=rows, student=ours, trainable=weights, objective=objective)
    if loss == "dskd":
        maps = new_projections(ours, theirs, 5)
        beside = DualSpaceTeacher(theirs, their_rows, rows, ours, maps)
        return replace(training, teacher=beside, trainable=WithProjections(weights, maps))
    readers = (Reader(rows, OURS, len(OURS)), Reader(their_rows, teacher, len(teacher)))
    return replace(training, teacher=make_span_teacher(theirs, *readers))


# references: plain transformers in float64, row by row


class Side:
    """One model at the answer of one row, in float64."""

    def __init__(self, tokenizer, network, text):
        tokens, mask = rows_of(tokenizer, [text]).row(0)
        ids, counts = torch.tensor(tokens.tolist()), torch.tensor(mask[1:].tolist(), dtype=torch.bool)
        outputs = network(input_ids=ids[None], output_hidden_states=True)
        self.logits = outputs.logits[0, :-1, : len(tokenizer)][counts]
        self.hidden = outputs.hidden_states[-1][0, :-1][counts]
        self.inputs, self.labels = ids[:-1][counts], ids[1:][counts]
        names = tokenizer.convert_ids_to_tokens(self.labels.tolist())
        self.ends = [*accumulate(1 if name in ("<|end|>", "</s>") else num_bytes(tokenizer, name) for name in names)]


def groups(ours, theirs):
    """-> tokens of both up to each byte where both have a border: TRL's walk along both (_align_by_byte_offsets)."""
    i = k = first_i = first_k = 0
    while i < len(ours) and k < len(theirs):
        end_i, end_k = ours[i], theirs[k]
        i, k = i + (end_i <= end_k), k + (end_k <= end_i)
        if end_i == end_k:
            yield range(first_i, i), range(first_k, k)
            first_i, first_k = i, k


def merged(side, group, temperature):
    """-> TRL's _merge_probabilities_with_alignment_groups, of probabilities where a token is predicted."""
    p = (side.logits / temperature).softmax(-1)
    return p[group[0]] * math.prod(p[place, side.labels[place]] for place in group[1:])


def text_of(tokenizer, token):
    """-> the bytes of a token, by the tokenizer's own decoder; of one that is not whole characters its name."""
    name = tokenizer.convert_ids_to_tokens(token)
    ends = {"<|end|>": "the end", "</s>": "the end"}
    if name in ends or name.startswith("<0x"):
        return ends.get(name, name)
    if tokenizer is THEIRS:
        return name.replace("▁", " ")
    text = tokenizer.decode([token])
    if "\ufffd" not in text:
        return text
    return f"<0x{pre_byte(name):02X}>" if len(name) == 1 else f"part {name}"


def pre_byte(letter):
    """-> the byte that a letter of GPT-2's alphabet stands for."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return ord(letter) if ord(letter) in printable else others[ord(letter) - 256]


def common():
    """-> pairs of tokens of equal text: words first, then single bytes."""
    known = {}
    for token in range(len(THEIRS)):
        known.setdefault(text_of(THEIRS, token), token)
    pairs = {}
    for token in range(len(OURS)):
        text = text_of(OURS, token)
        alone = f"<0x{ord(text):02X}>" if len(text) == 1 and ord(text) < 128 else None
        if (other := known.get(text, known.get(alone))) is not None:
            pairs[token] = other
    return [*pairs], [*pairs.values()]


def trl_hybrid(q, p, pairs, weight):
    """-> TRL's _compute_hybrid_uld_loss at beta 0 of one group."""
    ours, theirs = pairs
    matched = (p[theirs] * (p[theirs].log() - q[ours].log())).sum()
    rest_p, rest_q = (x[[i for i in range(len(x)) if i not in set(ids)]] for x, ids in ((p, theirs), (q, ours)))
    most = max(len(rest_p), len(rest_q))
    padded = [torch.cat([x.sort(descending=True).values, x.new_zeros(most - len(x))]) for x in (rest_p, rest_q)]
    weight = len(theirs) / len(p) if weight is None else weight
    return weight * matched + (1 - weight) * (padded[0] - padded[1]).abs().sum()


def sorted_l1(q, p):
    most = max(len(p), len(q))
    padded = [torch.cat([x.sort(descending=True).values, x.new_zeros(most - len(x))]) for x in (p, q)]
    return (padded[0] - padded[1]).abs().sum()


def dual_space(ours, theirs, networks, maps, temperature):
    """-> the authors' compute_dual_space_kd_loss_with_cma of one row, standard deviations of that row."""
    embeddings = [network.get_input_embeddings().weight.detach() for network in networks]
    (e_s, y_s), (e_t, y_t) = (
        (table[side.inputs], table[side.labels]) for table, side in zip(embeddings, (ours, theirs), strict=True)
    )

    def project(name, x):
        return linear(x, maps[f"projections.{name}.weight"], maps[f"projections.{name}.bias"])

    keys = torch.cat([e_t, y_t], -1)
    align = project("query", torch.cat([e_s, y_s], -1)) @ (keys / keys.std()).T / math.sqrt(2 * e_t.shape[1])
    values = project("to_student", theirs.hidden / theirs.hidden.std() + y_t / y_t.std())
    head_s, head_t = (
        network.lm_head.weight.detach()[: len(tokenizer)]
        for network, tokenizer in zip(networks, (OURS, THEIRS), strict=True)
    )
    t2s = align.softmax(-1) @ values @ head_s.T
    s2t = align.T.softmax(-1) @ project("to_teacher", ours.hidden) @ head_t.T
    right = t2s.argmax(-1) == ours.labels
    into_student = divergence(t2s.detach(), ours.logits, temperature) * right
    into_teacher = divergence(theirs.logits, s2t, temperature)
    return cross_entropy(t2s, ours.labels, reduction="sum") + into_student.sum() + into_teacher.sum()


def divergence(p, q, temperature):
    p, q = ((z / temperature).log_softmax(-1) for z in (p, q))
    return (p.exp() * (p - q)).sum(-1)


def dense(training):
    """-> class loss, KD loss, and the gradients of the loss, means over the student's loss-bearing tokens."""
    student, teacher = model(OURS, 1).double(), model(THEIRS, 2, 32).double()
    objective = training.objective
    maps = {
        name: weight.detach().double().requires_grad_()
        for name, weight in training.trainable.weights.items()
        if name.startswith("projections.")
    }
    class_loss = kd_loss = num_tokens = 0
    pairs = common()
    for text in TEXTS:
        ours, theirs = Side(OURS, student, text), Side(THEIRS, teacher, text)
        theirs.logits, theirs.hidden = theirs.logits.detach(), theirs.hidden.detach()
        assert ours.ends[-1] == theirs.ends[-1]
        class_loss = class_loss + cross_entropy(ours.logits, ours.labels, reduction="sum")
        num_tokens += len(ours.labels)
        if objective.kd.name == "dskd":
            kd_loss = kd_loss + dual_space(ours, theirs, (student, teacher), maps, objective.temperature)
            continue
        for i, k in groups(ours.ends, theirs.ends):
            if objective.kd.name == "uld":
                p, q = ((side.logits / objective.temperature).softmax(-1) for side in (theirs, ours))
                kd_loss = kd_loss + sorted_l1(q[i[0]], p[k[0]])
            else:
                p, q = merged(theirs, k, objective.temperature), merged(ours, i, objective.temperature)
                kd_loss = kd_loss + trl_hybrid(q, p, pairs, objective.kd.common_weight)
    loss = ((1 - objective.kd_ratio) * class_loss + objective.kd_weight * kd_loss) / num_tokens
    loss.backward()
    grads = {name: weight.grad for name, weight in [*student.named_parameters(), *maps.items()]}
    return float(class_loss.detach()) / num_tokens, float(kd_loss.detach()) / num_tokens, grads


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        ("gold", {}),
        ("gold", {"common_weight": 0.3, "temperature": 2.0, "scale_by_t2": True}),
        ("gold", {"common_weight": 1.0, "kd_ratio": 1.0}),
        ("uld", {}),
        ("uld", {"temperature": 0.7, "kd_ratio": 0.9}),
        ("dskd", {}),
        ("dskd", {"temperature": 2.0, "kd_ratio": 1.0}),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_step_is_that_of_the_dense_reference(loss, settings, dtype):
    training = training_of(loss, dtype=dtype, **settings)
    class_loss, kd_loss, exact = dense(training)
    losses, grads = reference.step(training)
    rounding = 1e-6 if dtype is torch.float64 else 1e-5
    assert losses["class_loss"] == pytest.approx(class_loss, rel=rounding)
    assert losses["kd_loss"] == pytest.approx(kd_loss, rel=rounding)
    if (loss, dtype) != ("uld", torch.float32):  # rounding decides on which side of a kink two probabilities lie
        assert reference.relative(grads, exact) < 2 * rounding


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_does_not_depend_on_micro_batches_or_chunks(loss, monkeypatch):
    training = training_of(loss)
    whole_losses, whole = reference.step(training, budget=10_000)
    losses, grads = reference.step(training, budget=1)
    assert losses == pytest.approx(whole_losses, rel=1e-5)
    assert reference.relative(grads, whole) < 1e-5
    monkeypatch.setitem(loss_chunks.CHUNK_TOKENS, "cpu", (2, 2))
    losses, grads = reference.step(training, budget=10_000)
    assert losses == pytest.approx(whole_losses, rel=1e-5)
    assert reference.relative(grads, whole) < 1e-5


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize(("loss", "plain"), [("gold", "forward_kl"), ("uld", "uld")])
def test_with_one_tokenizer_gold_is_forward_kl_and_uld_compares_every_token(loss, plain, temperature):
    training = training_of(loss, temperature, teacher=OURS)
    beside = replace(training, teacher=training.teacher.parts, objective=replace(training.objective, kd=parse(plain)))
    assert len(training.teacher.aligned.spans_S4) == training.rows.counts.loss_tokens
    (ours, grads), (exact_losses, exact) = reference.step(training), reference.step(beside)
    assert ours == pytest.approx(exact_losses, rel=1e-6)
    assert reference.relative(grads, exact) < 1e-6


@pytest.mark.parametrize("loss", LOSSES)
def test_the_teachers_memory_counts_and_its_layers_give_way_to_the_same_step(loss):
    training = training_of(loss)
    teacher = training.teacher.parts.model.requires_grad_(False)
    memory = training_memory(training)
    assert memory.teacher == sum(weight.nbytes for weight in teacher.parameters())
    maps = [weight for name, weight in training.trainable.weights.items() if name.startswith("projections.")]
    assert memory.beside.projections == sum(weight.numel() for weight in maps)
    losses, exact = reference.step(training)
    give_way(training, iter(partial(next_change, training), None))
    assert gave_way(training) == ORDER
    assert held(training, memory, 20, 20).teacher == memory.teacher_offloaded()
    again, grads = reference.step(training)
    assert again == pytest.approx(losses, rel=1e-6)
    assert reference.relative(grads, exact) < 1e-6


class Killed(BaseException):
    """Ends a process at once."""


class DyingLog(MetricsLog):
    """Ends it before the third step is recorded."""

    def append(self, **record):
        if record["step"] == 3:
            raise Killed
        super().append(**record)


def trained(folder, loss):
    """-> the curve and the files of a training of six steps, gone on with where it was begun."""
    settings = {"max_steps": 6, "checkpoint_every_s": 1e-9, "batch_size": 3, "lr": 1e-2}
    lora = {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj"], "dropout": 0.2}
    training = training_of(loss)
    recipe = reference.recipe(lora=lora, **settings)
    student = model(OURS, 1)
    weights = trainable.make_trainable(student, recipe, 5, adapters.Origin())
    parts = split_model(student, len(OURS))
    if loss == "dskd":
        maps = new_projections(parts, training.teacher.parts, 5)
        training = replace(training, teacher=replace(training.teacher, student=parts, weights=maps))
        weights = WithProjections(weights, maps)
    train(tiny.job(folder), replace(training, recipe=recipe, student=parts, trainable=weights))
    weights.save(folder / "out")
    changing = ("seconds", "peak_memory")
    curve = [
        {k: v for k, v in record.items() if k not in changing} for record in read_metrics(folder / "metrics.jsonl")
    ]
    return curve, {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


@pytest.mark.parametrize("loss", ["gold", "dskd"])
def test_a_training_that_was_killed_ends_bit_for_bit_as_if_it_had_not_been(loss, tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole", loss)
    monkeypatch.setattr(tiny, "MetricsLog", DyingLog)
    with pytest.raises(Killed):
        trained(tmp_path / "killed", loss)
    monkeypatch.undo()
    assert trained(tmp_path / "killed", loss) == whole
    assert len(whole[0]) == 6


def test_projections_are_trained_and_no_part_of_the_result(tmp_path):
    trained(tmp_path, "dskd")
    latest = sorted((tmp_path / "checkpoints").rglob("weights.safetensors"))[-1]
    begun = new_projections(split_model(model(OURS, 1), len(OURS)), split_model(model(THEIRS, 2, 32), len(THEIRS)), 5)
    after = load_file(latest)
    assert all(not torch.equal(after[name], weight) for name, weight in begun.items())
    written = load_file(tmp_path / "out/adapter_model.safetensors")
    assert written
    assert not [name for name in written if "projections" in name]


def test_rows_of_two_templates_that_are_not_as_many_are_refused():
    rows = rows_of(OURS, TEXTS)
    with pytest.raises(StageError, match=r"6 rows of tokens of the data and the teacher's 5.*data\.answers: last"):
        make_span_teacher(None, Reader(rows, OURS, 1), Reader(rows_of(THEIRS, TEXTS[:5]), THEIRS, 1))


def test_rows_that_have_no_text_in_common_are_refused():
    cut = [
        lay([TokenRow(ids.tolist()[:-1], mask.tolist()[:-1])])
        for ids, mask in (rows_of(one, [text]).row(0) for one, text in ((OURS, "abc"), (THEIRS, "xyz")))
    ]
    rows = [Reader(one, tokenizer, 1) for one, tokenizer in zip(cut, (OURS, THEIRS), strict=True)]
    with pytest.raises(StageError, match="do their templates render the same answers"):
        make_span_teacher(None, *rows)
