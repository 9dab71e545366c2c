"""TRL's GKDTrainer as it is, on answers that the student writes: its `training_step` for each micro-batch."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from datasets import Dataset
from trl.experimental.gkd import GKDConfig, GKDTrainer

from benchmarks import models, rows
from benchmarks.contenders.plain import lora
from benchmarks.contenders.trl_gkd import tokenizer
from benchmarks.setup import ENDS, LR, MICRO_BATCH, NEW_TOKENS, WEIGHT_DECAY, Setup


class Gkd:
    """No gradient checkpointing, which TRL turns on unless told not to: slower, and it writes without a cache."""

    at_once = MICRO_BATCH
    forwarded = 0

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.rows = rows.make(setup.num_rows, setup.vocabulary, setup.seed)
        self.models = {
            name: models.load(setup.model(name), setup.dtype, setup.device) for name in ("student", "teacher")
        }
        self.models["student"].generation_config.eos_token_id = ENDS

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
        self.num_predicted = torch.tensor(len(self.rows) * NEW_TOKENS, device=self.setup.device)

    def _settings(self) -> GKDConfig:
        return GKDConfig(
            output_dir=str(self.setup.model("trl")),
            lmbda=1.0,
            beta=1.0,
            temperature=1.0,
            max_new_tokens=NEW_TOKENS,
            per_device_train_batch_size=self.at_once,
            learning_rate=LR,
            weight_decay=WEIGHT_DECAY,
            bf16=self.setup.dtype == "bfloat16",
            use_cpu=self.setup.device == "cpu",
            gradient_checkpointing=False,
            report_to="none",
        )

    def step(self) -> Mapping[str, float]:
        kd_loss, self.forwarded = torch.zeros((), device=self.setup.device), 0
        for inputs in self._micro_batches():
            kd_loss += self.trainer.training_step(self.trainer.model, inputs, self.num_predicted)
            self.forwarded += inputs["input_ids"].numel()
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad()
        return {"kd_loss": float(kd_loss)}

    def _micro_batches(self) -> Iterator[dict[str, Any]]:
        """-> prompts padded on the left, as TRL's collator does."""
        for begin in range(0, len(self.rows), self.at_once):
            asked = self.rows[begin : begin + self.at_once]
            width = max(map(len, asked))
            ids = torch.tensor([[0] * (width - len(one)) + one for one in asked], device=self.setup.device)
            mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in asked], device=self.setup.device)
            yield {"prompts": ids, "prompt_attention_mask": mask}


class GkdAtOnce(Gkd):
    """All rows in one micro-batch."""

    at_once = 16
