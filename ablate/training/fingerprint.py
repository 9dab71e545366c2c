"""What a model answers to a few fixed tokens, kept when it is first loaded and compared whenever it is again.

The same files can give another model: under another version of a library, on a machine whose kernels or memory are
wrong, or through an adapter that is merged another way. A few logits tell, for the price of one short forward pass.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ablate.core.errors import StageError
from ablate.core.values import Json
from ablate.store import fingerprints
from ablate.training import attention

# T positions, V vocabulary (rows of the head)

NUM_TOKENS = 12
NUM_CHOSEN = 16
"""Logits kept of each position."""
TOLERANCE = {"bfloat16": 1e-1, "float16": 2e-2, "float32": 1e-3, "float64": 1e-6}
"""Of the largest logit. Kernels of another machine sum in another order, layer after layer: of 16 bits as much as
between inputs of another shape; of float32 what TF32 multiplications would make."""


def require_same(model: Any, made_by: Sequence[str], dtype: str, checks: Path | None) -> None:
    """Compares a model's logits with those kept under `checks` of the same stages and dtype; the first are kept.

    Raises StageError (other_model) where they differ by more than the dtype's rounding. `checks` None: nothing is done.
    """
    if checks is None or not made_by:
        return
    here = _answers(model)
    if math.isfinite(here["largest"]):  # else it is refused for that, in words of its own
        _compare(fingerprints.kept_or_first(checks, made_by, dtype, here), here, made_by, dtype)


@torch.no_grad()
def _answers(model: Any) -> dict[str, Any]:
    """-> sums of all logits, and some of them, of a few tokens; summed in float64, logits of 32 bits or more."""
    attention.take_over(model)
    num_rows = int(model.get_input_embeddings().num_embeddings)
    ids_1T = (torch.arange(NUM_TOKENS, device=model.device) * 7919 % num_rows).unsqueeze(0)
    logits_TV = model(input_ids=ids_1T, use_cache=False).logits[0].float().cpu()
    chosen_V = torch.arange(NUM_CHOSEN) * 104_729 % logits_TV.shape[1]
    return {
        "sum": float(logits_TV.double().sum()),
        "absolute_sum": float(logits_TV.double().abs().sum()),
        "largest": float(logits_TV.abs().max()),
        "logits": [[float(f"{logit:.7g}") for logit in row] for row in logits_TV[:, chosen_V].tolist()],
        **_machine(model),
    }


def _machine(model: Any) -> dict[str, Json]:
    import transformers

    return {"device": str(model.device.type), "torch": torch.__version__, "transformers": transformers.__version__}


def _compare(kept: Mapping[str, Any], here: Mapping[str, Any], made_by: Sequence[str], dtype: str) -> None:
    there_TV, here_TV = (torch.tensor(one["logits"], dtype=torch.float64) for one in (kept, here))
    is_alike = there_TV.shape == here_TV.shape
    difference = float((there_TV - here_TV).abs().max()) if is_alike else math.inf
    allowed = TOLERANCE[dtype] * kept["largest"]
    if not difference <= allowed:  # nan too
        machine = f"{kept['device']}, torch {kept['torch']}, transformers {kept['transformers']}"
        raise StageError(
            f"this is not the model that was loaded before under the same key ({' + '.join(made_by)}): its logits of"
            f" {NUM_TOKENS} fixed tokens sum to {here['sum']:.6g}, and then to {kept['sum']:.6g} ({machine}); one"
            f" differs by {difference:.3g}, {allowed:.3g} is allowed of {dtype}. Scores of both must not stand in one"
            " table",
            "other_model",
        )
