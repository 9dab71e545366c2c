"""A loop with transformers and peft whose loss is Liger's: head and loss in one, in chunks."""

from collections.abc import Mapping

import torch
from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss
from torch import Tensor

from benchmarks.contenders import plain
from benchmarks.contenders.collate import Batch
from benchmarks.setup import KD_RATIO


class Distilling(plain.Distilling):
    """beta 0 is the forward KL; compiled, Liger's default, on a GPU alone."""

    def prepare(self) -> None:
        super().prepare()
        self.loss = LigerFusedLinearJSDLoss(
            weight_hard_loss=1 - KD_RATIO,
            weight_soft_loss=KD_RATIO,
            beta=0.0,
            compiled=self.setup.device != "cpu",
            return_soft_hard_loss=True,
        )

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        student, labels_M = self.student.get_base_model(), batch.labels_BT[:, 1:].flatten()
        inputs = {"input_ids": batch.ids_BT, "attention_mask": batch.mask_BT}
        hidden_MD = student.model(**inputs).last_hidden_state[:, :-1].flatten(0, 1)
        with torch.no_grad():
            answers_MD = self.teacher.model(**inputs).last_hidden_state[:, :-1].flatten(0, 1)
        heads = (part.lm_head.weight for part in (student, self.teacher))
        student_VD, teacher_VD = heads
        loss, kd_loss, class_loss = self.loss(hidden_MD, student_VD, answers_MD, teacher_VD, labels_M)
        num = int((labels_M >= 0).sum())  # what Liger's means were divided by
        (loss * num / self.num_predicted).backward()
        return {"class_loss": class_loss.detach() * num, "kd_loss": kd_loss.detach() * num}
