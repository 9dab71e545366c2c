"""TRL's GKDTrainer as it is, off-policy and with forward KL: its `training_step` for each micro-batch."""

from collections.abc import Mapping

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from trl.experimental.gkd import GKDConfig, GKDTrainer

from benchmarks import models, rows
from benchmarks.contenders.collate import micro_batches, num_predicted
from benchmarks.contenders.plain import lora
from benchmarks.setup import LR, MICRO_BATCH, WEIGHT_DECAY, Setup


class Gkd:
    """No gradient checkpointing, which TRL turns on unless told not to: slower, smaller."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.rows = rows.make(setup.num_rows, setup.vocabulary, setup.seed)
        self.forwarded = rows.padded([len(ids) for ids in self.rows])
        self.models = {
            name: models.load(setup.model(name), setup.dtype, setup.device) for name in ("student", "teacher")
        }

    def prepare(self) -> None:
        self.trainer = GKDTrainer(
            model=self.models["student"],
            teacher_model=self.models["teacher"],
            args=self._settings(),
            train_dataset=Dataset.from_dict({"input_ids": self.rows}),
            processing_class=tokenizer(),
            peft_config=lora(),
        )
        self.trainer.create_optimizer()
        self.trainer.current_gradient_accumulation_steps = 1  # the loss is divided by the step's tokens already
        self.num_predicted = torch.tensor(num_predicted(self.rows), device=self.setup.device)

    def _settings(self) -> GKDConfig:
        return GKDConfig(
            output_dir=str(self.setup.model("trl")),
            lmbda=0.0,
            beta=0.0,
            temperature=1.0,
            per_device_train_batch_size=MICRO_BATCH,
            learning_rate=LR,
            weight_decay=WEIGHT_DECAY,
            bf16=self.setup.dtype == "bfloat16",
            use_cpu=self.setup.device == "cpu",
            gradient_checkpointing=False,
            report_to="none",
        )

    def step(self) -> Mapping[str, float]:
        kd_loss = torch.zeros((), device=self.setup.device)
        for ids_BT, mask_BT, labels_BT in micro_batches(self.rows, self.setup.device):
            inputs = {"input_ids": ids_BT, "attention_mask": mask_BT, "labels": labels_BT}
            kd_loss += self.trainer.training_step(self.trainer.model, inputs, self.num_predicted)
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad()
        return {"kd_loss": float(kd_loss)}


def tokenizer() -> PreTrainedTokenizerFast:
    """-> one that the trainer can ask for its padding; rows are tokens already."""
    raw = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")
