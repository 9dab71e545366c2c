"""Sizes of a model at the hub, from its config.json and the headers of its files: no weight is brought here."""

import json
from pathlib import Path

from ablate.core.hub import Repo
from ablate.store.hub_errors import explain_hub_error
from ablate.store.sizes import ModelSizes, TensorShape, sizes_of

TIMEOUT_S = 10.0


def sizes_at_hub(repo: Repo) -> ModelSizes | None:
    """-> of a model at a commit; None where its configuration says no width. Raises StageError, classed."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    try:
        HfApi().repo_info(repo.id, revision=repo.revision, timeout=TIMEOUT_S)  # tried once; a file is, six times
        config = json.loads(Path(hf_hub_download(repo.id, "config.json", revision=repo.revision)).read_text())
        files = HfApi().get_safetensors_metadata(repo.id, revision=repo.revision).files_metadata
    except Exception as error:  # of many libraries; each is explained, none is dropped
        raise explain_hub_error(error, repo) from error
    tensors = [(name, tensor) for file in files.values() for name, tensor in file.tensors.items()]
    return sizes_of(config, [TensorShape(name, tuple(tensor.shape)) for name, tensor in tensors])
