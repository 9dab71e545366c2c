"""A teacher cut to its k likeliest tokens: made of its logits, or read back as it was kept; and the loss against it.

K: the kept tokens. With `event` all others are one more event, of the teacher's probability p_rest and the student's
q_rest, summed over them; a divergence is then taken over k + 1 events, never more than over all V tokens, and 0 where
the two models agree. With `zero` p' = p / p(K) on K and 0 elsewhere, and the student has all of V: for a divergence of
the kind sum_v q f(p / q) those V tokens are as k + 1 events, with p_rest = 0. Its least is not at p but at p' (see
`losses.top_k`, of which `event` with forward KL is a rounded form).

Kept are log-probabilities in float16 where the models have 16 bits, else in their own dtype; of the rest its
probability, in float32. They are rounded so, too, where nothing is kept and the teacher runs beside.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ablate.training.head import Head
from ablate.training.logits_loss import softmax_, subtract_labels_
from ablate.training.loss import ChunkLoss, LossSums, Objective, Scratch, StudentChunk, TeacherOutputs, TopKForm
from ablate.training.own_tokens import OwnTokens
from ablate.training.teacher_outputs import TeacherHidden

# M loss-bearing tokens, C of them in one chunk, V vocabulary, k kept tokens, E events: those and the rest
# q the student's distribution, g the gradient of the divergence in log q of the events, y the label

LEAST = torch.finfo(torch.float32).tiny
COSTS = ("teacher_mass_left_out", "teacher_entropy_lost", "teacher_kl_error")
"""A step's record of `LossSums.cut`, in this order."""


class TeacherTopK(NamedTuple):
    """What is kept of a teacher's distribution at one temperature, and of what it was."""

    ids_Mk: Tensor
    """int32; the likeliest first."""
    logp_Mk: Tensor
    rest_M: Tensor
    """Probability of all other tokens, in float32."""
    entropy_M: Tensor
    """H(p) of the whole, in float32."""
    kl_error_M: Tensor
    """KL(p || p~) in float32, where p~ is what is kept, rounded, and spreads p_rest evenly over the other tokens."""

    @property
    def k(self) -> int:
        return self.ids_Mk.shape[1]

    def chunk_loss(self, objective: Objective, student: StudentChunk, scratch: Scratch) -> ChunkLoss:
        assert objective.top_k is not None
        part = TeacherTopK(*(tensor[student.tokens] for tensor in self))
        return _chunk_loss(objective, objective.top_k, student, part)

    def events(self, form: TopKForm, vocabulary: int, dtype: torch.dtype) -> Tensor:
        """-> log-probabilities (M x E) that sum to 1; with every token kept there is no rest."""
        logp_Mk = self.logp_Mk.to(dtype)
        if self.k == vocabulary:
            return logp_Mk.log_softmax(1)
        rest_M = self.rest_M.to(dtype) if form.has_rest else torch.zeros_like(self.rest_M, dtype=dtype)
        kept_Mk = logp_Mk if form.has_rest else logp_Mk.log_softmax(1)
        events_ME = torch.cat((kept_Mk, rest_M.clamp(min=LEAST).log()[:, None]), 1)
        return events_ME.log_softmax(1)

    def costs(self, form: TopKForm, events_ME: Tensor) -> Tensor:
        """-> summed over tokens in float64 (3): probability left out, entropy lost, KL error.

        The KL error is KL(p || p~) with a rest; without one that is infinite, and it is KL(p' || p) = -log p(K).
        """
        kept_M = torch.special.entr(events_ME.double().exp()).sum(1)
        rest_M = self.rest_M.double()
        error_M = self.kl_error_M.double() if form.has_rest else -(1 - rest_M).clamp(min=LEAST).log()
        return torch.stack((rest_M.sum(), (self.entropy_M.double() - kept_M).sum(), error_M.sum()))


class CutHidden(NamedTuple):
    """A teacher's hidden states, of whose distribution the likeliest tokens alone are learnt from."""

    hidden_MD: Tensor
    head: Head
    own: OwnTokens | None = None
    """Where the student wrote these tokens: what is recorded of them, of the whole teacher."""

    def chunk_loss(self, objective: Objective, student: StudentChunk, scratch: Scratch) -> ChunkLoss:
        assert objective.top_k is not None
        hidden_CD = self.hidden_MD[student.tokens]
        logits_CV = self.head.logits(hidden_CD, scratch("teacher", hidden_CD, self.head.vocabulary))
        if self.own:
            self.own.add(student.tokens, student.logits_CV, logits_CV, student.labels_C)
        part = cut_logits(logits_CV, objective.top_k.k, objective.temperature, kept_dtype(hidden_CD.dtype))
        return _chunk_loss(objective, objective.top_k, student, part)


def cut_outputs(objective: Objective, teacher: TeacherOutputs) -> TeacherOutputs:
    """-> what is learnt from of what is known of a teacher: hidden states are cut, where they were not before.

    Raises TypeError for what cannot be cut any more: the whole would be learnt from.
    """
    if objective.top_k is None or isinstance(teacher, TeacherTopK):
        return teacher
    if isinstance(teacher, TeacherHidden):
        return CutHidden(*teacher)
    raise TypeError(f"no {type(teacher).__name__} can be cut to the teacher's likeliest tokens")


def divergence(objective: Objective, student_CV: Tensor, teacher_CV: Tensor, dtype: torch.dtype) -> Tensor:
    """Logits, divided by the temperature -> KD of each token (C), from what is left of the teacher where it is cut.

    `dtype`: of the teacher.
    """
    form = objective.top_k
    if form is None:
        return objective.kd(student_CV, teacher_CV)
    part = cut_logits(teacher_CV.clone(), form.k, 1.0, kept_dtype(dtype))
    logq_CV, ids_Ck = student_CV.log_softmax(1), part.ids_Mk.long()
    rest_C1 = logq_CV.scatter(1, ids_Ck, -math.inf).logsumexp(1, keepdim=True).clamp(min=math.log(LEAST))
    events_CE = part.events(form, student_CV.shape[1], student_CV.dtype)
    return objective.kd(torch.cat((logq_CV.gather(1, ids_Ck), rest_C1), 1)[:, : events_CE.shape[1]], events_CE)


def cut_costs(cut: Tensor, num_tokens: int) -> Mapping[str, float]:
    """-> a step's record of what a cut teacher lacks, means over its tokens."""
    return {name: float(value) / max(1, num_tokens) for name, value in zip(COSTS, cut, strict=True)}


def kept_dtype(dtype: torch.dtype) -> torch.dtype:
    """-> of log-probabilities of a model of some dtype: bfloat16 has 8 bits, which round p by 3 % at log p = -10."""
    return torch.float16 if dtype.itemsize == 2 else dtype


def cut_logits(logits_CV: Tensor, k: int, temperature: float, dtype: torch.dtype) -> TeacherTopK:
    """Logits, used up -> what is kept of softmax(logits / temperature)."""
    vocabulary = logits_CV.shape[1]
    logp_CV = logits_CV.div_(temperature).log_softmax(1)
    top = logp_CV.topk(min(k, vocabulary), dim=1)
    p_CV = torch.exp(logp_CV, out=logits_CV)
    entropy_C = -torch.linalg.vecdot(p_CV, logp_CV).double()
    rest_C = p_CV.scatter_(1, top.indices, 0).sum(1)
    part = TeacherTopK(top.indices.int(), top.values.to(dtype), rest_C.float(), entropy_C.float(), entropy_C.float())
    return part._replace(kl_error_M=_kl_error(part, top.values.double(), rest_C.double(), entropy_C, vocabulary))


def _kl_error(part: TeacherTopK, logp_Ck: Tensor, rest_C: Tensor, entropy_C: Tensor, vocabulary: int) -> Tensor:
    """-> KL(p || p~) = -H(p) - sum_K p log p~ - p_rest log(p~_rest / (V - k)), from float64."""
    events_CE = part.events(TopKForm(part.k, True), vocabulary, torch.float64)
    error_C: Tensor = -entropy_C - torch.linalg.vecdot(logp_Ck.exp(), events_CE[:, : part.k])
    if part.k < vocabulary:
        error_C = error_C - rest_C * (events_CE[:, -1] - math.log(vocabulary - part.k))
    return error_C.float()


def _chunk_loss(objective: Objective, form: TopKForm, student: StudentChunk, part: TeacherTopK) -> ChunkLoss:
    """(1 - r) CE + w KD(T); at T = 1 one softmax of the student serves both."""
    ratio, temperature = objective.kd_ratio, objective.temperature
    logits_CV = student.logits_to_overwrite() if temperature == 1.0 else student.logits_CV / temperature
    events_CE = part.events(form, logits_CV.shape[1], logits_CV.dtype)
    own = 1 - ratio if temperature == 1.0 else 0.0
    kd = _divergence_(objective, logits_CV, student.labels_C, part.ids_Mk.long(), events_CE, own)
    grad_CV, class_C = logits_CV, kd.surprise_C
    if temperature != 1.0:
        grad_CV = student.logits_to_overwrite()
        class_C = softmax_(grad_CV, student.labels_C).surprise_C
        grad_CV.mul_(1 - ratio).add_(logits_CV)
    grad_CD = student.backward(subtract_labels_(grad_CV, student.labels_C, 1 - ratio))
    entropy_C = torch.special.entr(events_CE.exp()).sum(1)
    return ChunkLoss(grad_CD, LossSums.over(class_C, kd.loss_C, entropy_C)._replace(cut=part.costs(form, events_CE)))


class _Divergence(NamedTuple):
    loss_C: Tensor
    surprise_C: Tensor
    """-log q[y], at the temperature of the logits."""


def _divergence_(
    objective: Objective, logits_CV: Tensor, labels_C: Tensor, ids_Ck: Tensor, events_CE: Tensor, own: float
) -> _Divergence:
    """Turns the student's tempered logits into the gradient of w KD in its logits z, plus `own` times q, in place.

    d w KD / d z_u = 1/T g_u for u in K, and 1/T g_rest q_u / q_rest elsewhere: a loss is one of logits, so that g sums
    to 0 over the events, and what a shift of all of them would add is nothing.
    """
    temperature, k = objective.temperature, ids_Ck.shape[1]
    logit_Ck = logits_CV.gather(1, ids_Ck)
    student = softmax_(logits_CV, labels_C)
    q_Ck = logits_CV.gather(1, ids_Ck)
    rest_C1 = logits_CV.scatter_(1, ids_Ck, 0).sum(1, keepdim=True).clamp(min=LEAST)
    logq_Ck = (logit_Ck.double() - student.lse_C[:, None]).to(logits_CV.dtype)
    logq_CE = torch.cat((logq_Ck, rest_C1.log()), 1)[:, : events_CE.shape[1]]
    loss_C, grad_CE = _differentiated(objective, logq_CE, events_CE)
    if k < events_CE.shape[1]:
        logits_CV.mul_(grad_CE[:, k:] / rest_C1 / temperature + own)
    logits_CV.scatter_(1, ids_Ck, grad_CE[:, :k] / temperature + own * q_Ck)
    return _Divergence(loss_C, student.surprise_C)


def _differentiated(objective: Objective, logq_CE: Tensor, events_CE: Tensor) -> tuple[Tensor, Tensor]:
    """-> the divergence of events, and g: its gradient in the student's log-probabilities, weighted."""
    leaf_CE = logq_CE.detach()
    if not objective.kd_weight:
        return objective.kd(leaf_CE, events_CE), torch.zeros_like(leaf_CE)
    with torch.enable_grad():
        leaf_CE.requires_grad_(True)
        kd_C = objective.kd(leaf_CE, events_CE)
        (grad_CE,) = torch.autograd.grad(kd_C.sum() * objective.kd_weight, leaf_CE)
    return kd_C.detach(), grad_CE
