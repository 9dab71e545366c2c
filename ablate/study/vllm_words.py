"""What answers that vLLM is to write need, and what is told where it lacks."""

import importlib.util

INSTEAD = "sampling.writer: transformers"
NOT_INSTALLED = f"sampling.writer: vllm, and vLLM is not installed: `pip install 'ablate[vllm]'`, or say {INSTEAD}"
NO_CARD = f"sampling.writer: vllm needs a CUDA card, and there is none: run the study where one is, or say {INSTEAD}"


def is_installed() -> bool:
    """Whether vLLM can be imported, for all that is known without doing so."""
    return importlib.util.find_spec("vllm") is not None
