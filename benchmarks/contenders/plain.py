"""What one writes by hand with transformers and peft."""

from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional

from benchmarks import models, rows
from benchmarks.contenders.collate import IGNORED, Batch, micro_batches, num_predicted
from benchmarks.setup import KD_RATIO, LORA_ALPHA, LORA_RANK, LR, TARGETS, WEIGHT_DECAY, Setup


def lora() -> LoraConfig:
    return LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=list(TARGETS), task_type="CAUSAL_LM")


class FineTuning:
    """transformers' own loss; gradients accumulate over micro-batches."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.rows = rows.make(setup.num_rows, setup.vocabulary, setup.seed)
        self.forwarded = rows.padded([len(ids) for ids in self.rows])
        self.student = models.load(setup.model("student"), setup.dtype, setup.device)

    def prepare(self) -> None:
        torch.manual_seed(self.setup.seed)
        self.student = get_peft_model(self.student, lora()).train()
        weights = [weight for weight in self.student.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(weights, lr=LR, weight_decay=WEIGHT_DECAY)
        self.num_predicted = num_predicted(self.rows)

    def step(self) -> Mapping[str, float]:
        sums = [self.losses(batch) for batch in micro_batches(self.rows, self.setup.device)]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {name: float(sum(losses[name] for losses in sums)) / self.num_predicted for name in sums[0]}

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """-> sums over the micro-batch, whose backward pass is done."""
        num = self.num_predicted
        answer = self.student(
            input_ids=batch.ids_BT, attention_mask=batch.mask_BT, labels=batch.labels_BT, num_items_in_batch=num
        )
        answer.loss.backward()
        return {"class_loss": answer.loss.detach() * num}


class Distilling(FineTuning):
    """Dense logits of both models, cross-entropy and forward KL by torch's functions."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.teacher: Any = models.load(setup.model("teacher"), setup.dtype, setup.device)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        inputs = {"input_ids": batch.ids_BT, "attention_mask": batch.mask_BT}
        logits_MV = _predicting(self.student(**inputs).logits)
        with torch.no_grad():
            answers_MV = _predicting(self.teacher(**inputs).logits)
        labels_M = batch.labels_BT[:, 1:].flatten()
        class_loss = functional.cross_entropy(logits_MV, labels_M, ignore_index=IGNORED, reduction="sum")
        kl_MV = functional.kl_div(
            logits_MV.log_softmax(-1), answers_MV.log_softmax(-1), reduction="none", log_target=True
        )
        kd_loss = kl_MV.sum(-1)[labels_M != IGNORED].sum()
        loss = (1 - KD_RATIO) * class_loss + KD_RATIO * kd_loss
        (loss / self.num_predicted).backward()
        return {"class_loss": class_loss.detach(), "kd_loss": kd_loss.detach()}


def _predicting(logits_BTV: Tensor) -> Tensor:
    return logits_BTV[:, :-1].flatten(0, 1).float()
