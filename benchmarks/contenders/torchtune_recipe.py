"""torchtune's KD recipe itself: its models, losses and `train`, one optimizer step a call."""

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchtune
from omegaconf import DictConfig
from safetensors.torch import load_file
from torchtune import training
from torchtune.data import padded_collate_sft
from torchtune.models.convert_weights import hf_to_tune
from torchtune.modules.loss import CEWithChunkedOutputLoss, ForwardKLWithChunkedOutputLoss

from benchmarks import rows
from benchmarks.contenders.collate import labels
from benchmarks.setup import KD_RATIO, LORA_ALPHA, LORA_RANK, LR, MICRO_BATCH, WEIGHT_DECAY, Setup

# settings are those of torchtune's llama3_2/8B_to_1B_KD_lora_single_device.yaml

MAX_LENGTH = 2048
"""Of the table of rotations that torchtune keeps."""


def _recipe_class() -> Any:
    """-> KDRecipeSingleDevice; its folder is installed, but is no package."""
    path = Path(torchtune.__file__).parents[1] / "recipes/knowledge_distillation_single_device.py"
    spec = importlib.util.spec_from_file_location("torchtune_kd_recipe", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no recipe at {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.KDRecipeSingleDevice


class _Loader:
    """Collates as the recipe's loader does, in this process."""

    def __init__(self, token_ids: Sequence[Sequence[int]]) -> None:
        self.rows = [{"tokens": list(ids), "labels": labels(ids)} for ids in token_ids]
        self.sampler = self

    def set_epoch(self, epoch: int) -> None:
        pass

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for begin in range(0, len(self.rows), MICRO_BATCH):
            yield padded_collate_sft(self.rows[begin : begin + MICRO_BATCH])


class _MetricLogger:
    """Stands for the recipe's metric logger."""

    def log_dict(self, record: Mapping[str, Any], step: int) -> None:
        self.record = record


class _Step(_recipe_class()):  # type: ignore[misc]
    """The recipe, whose epoch is one step and leaves no checkpoint."""

    def __init__(self, setup: Setup, token_ids: Sequence[Sequence[int]]) -> None:
        self._device = torch.device(setup.device)
        self._dtype = getattr(torch, setup.dtype)
        self._compile = self._resume_from_checkpoint = self.profiler_profile_memory = False
        self._log_every_n_steps, self._log_peak_memory_stats = 1, setup.device != "cpu"
        self.total_epochs, self.max_steps_per_epoch, self.global_step = 1, None, 0
        self._gradient_accumulation_steps = len(token_ids) // MICRO_BATCH
        self._clip_grad_norm, self._kd_ratio, self._steps_per_epoch = None, KD_RATIO, 1
        self._profiler, self._metric_logger = training.DummyProfiler(), _MetricLogger()
        self._dataloader = _Loader(token_ids)
        self._loss_fn, self._kd_loss_fn = CEWithChunkedOutputLoss(), ForwardKLWithChunkedOutputLoss()
        self.ignore_labels_cache = torch.full((MICRO_BATCH, 1), self._loss_fn.ignore_index, device=self._device)

    def load(self, setup: Setup) -> None:
        student, teacher = _settings(setup.model("student")), _settings(setup.model("teacher"))
        adapted = {
            "_component_": "torchtune.models.llama3_2.lora_llama3_2",
            "lora_attn_modules": ["q_proj", "v_proj", "output_proj"],
            "apply_lora_to_mlp": True,
            "lora_rank": LORA_RANK,
            "lora_alpha": LORA_ALPHA,
        }
        self._model = self._setup_model(
            DictConfig(student | adapted), False, False, _weights(setup.model("student"), student)
        )
        plain = {"_component_": "torchtune.models.llama3_1.llama3_1"}
        self._teacher_model = self._setup_teacher_model(
            DictConfig(teacher | plain), _weights(setup.model("teacher"), teacher)
        )
        for model in (self._model, self._teacher_model):
            model.set_num_output_chunks(self._loss_fn.num_output_chunks)

    def prepare(self) -> None:
        self._optimizer = self._setup_optimizer(
            DictConfig({"_component_": "torch.optim.AdamW", "fused": True, "weight_decay": WEIGHT_DECAY, "lr": LR})
        )
        schedule = "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup"
        cosine = DictConfig({"_component_": schedule, "num_warmup_steps": 100})
        self._lr_scheduler = self._setup_lr_scheduler(cosine, num_training_steps=1000, last_epoch=-1)

    def save_checkpoint(self, epoch: int) -> None:
        pass


class Recipe:
    """Its KL keeps the teacher's entropy; its step divides the gradient by the tokens twice, as released."""

    def __init__(self, setup: Setup) -> None:
        token_ids = rows.make(setup.num_rows, setup.vocabulary, setup.seed)
        self.forwarded = rows.padded([len(ids) for ids in token_ids])
        torch.manual_seed(setup.seed)
        self.recipe = _Step(setup, token_ids)
        self.recipe.load(setup)

    def prepare(self) -> None:
        self.recipe.prepare()

    def step(self) -> Mapping[str, float]:
        self.recipe.epochs_run = 0
        self.recipe.train()
        record = self.recipe._metric_logger.record
        return {"class_loss": float(record["class_loss"]), "cross_kd": float(record["kd_loss"])}


def _settings(folder: Path) -> dict[str, Any]:
    """-> a model's shape in torchtune's words."""
    config = json.loads((folder / "config.json").read_text())
    return {
        "vocab_size": config["vocab_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "num_kv_heads": config["num_key_value_heads"],
        "embed_dim": config["hidden_size"],
        "intermediate_dim": config["intermediate_size"],
        "max_seq_len": MAX_LENGTH,
        "norm_eps": config["rms_norm_eps"],
    }


def _weights(folder: Path, settings: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    weights = {name: weight for path in folder.glob("*.safetensors") for name, weight in load_file(path).items()}
    heads = {name: settings[name] for name in ("num_heads", "num_kv_heads")}
    return hf_to_tune(weights, **heads, dim=settings["embed_dim"])
