"""Why no causal language model can be loaded from some files: told by names, JSON and headers, without loading them."""

import importlib.util
import re
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ablate.core.errors import did_you_mean
from ablate.core.model_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, PICKLES, ModelFiles
from ablate.core.weight_faults import reading, weight_faults

OTHER_HEADS = re.compile(r"For(Masked|Sequence|Token|QuestionAns|MultipleChoice|NextSentence|Image|Audio|CTC)")
"""In the name of an architecture: a head that predicts no next token."""
TOKENIZER = re.compile(r"(tokenizer.*|vocab.*|merges\.txt|spiece\.model|.*\.tiktoken|sentencepiece.*|spm\.model)")


def faults(files: ModelFiles, *, trust_remote_code: bool = False) -> Iterator[str]:
    """-> every reason why no causal language model can be loaded from these files, with what to do."""
    if files.is_adapter:
        yield from _adapter_faults(files)
        return
    config = files.json(CONFIG) if CONFIG in files.names else None
    if CONFIG not in files.names:
        yield f"there is no {CONFIG} in it: it is no transformers model"
    elif not isinstance(config, dict):
        yield f"its {CONFIG} is no JSON mapping: it is torn, or no transformers model"
    else:
        yield from _config_faults(config, files.names, trust_remote_code)
    yield from weight_faults(files)
    if not any(TOKENIZER.fullmatch(name) for name in files.names):
        yield "it has no tokenizer (tokenizer.json, tokenizer.model, vocab.json, ...): save the model's own beside it"


def _adapter_faults(files: ModelFiles) -> Iterator[str]:
    if not isinstance(files.json(ADAPTER_CONFIG), dict):
        yield f"its {ADAPTER_CONFIG} is no JSON mapping"
    if ADAPTER_WEIGHTS not in files.names:
        pickled = [name for name in files.names if name.endswith(PICKLES)]
        as_what = f" (only {pickled[0]}, which can run code when read: save it anew with PEFT)" if pickled else ""
        yield f"it has an {ADAPTER_CONFIG} and no {ADAPTER_WEIGHTS}{as_what}"
    elif files.folder:
        yield from reading(files.folder, ADAPTER_WEIGHTS)[1]


# config.json


def _config_faults(config: dict[str, Any], names: Collection[str], trust_remote_code: bool) -> Iterator[str]:
    yield from _quantised(config)
    if config.get("is_encoder_decoder"):
        yield f"it is an encoder-decoder ({_architecture(config)}): a causal language model is expected"
    elif OTHER_HEADS.search(_architecture(config)):
        yield f"it is a {_architecture(config)}, whose head predicts no next token: a causal language model is expected"
    else:
        yield from _code_faults(config, names, trust_remote_code)


def _quantised(config: dict[str, Any]) -> Iterator[str]:
    """-> that a checkpoint is quantised; fp8 and mxfp4 too: what is trained must be the weights themselves."""
    inner = config.get("text_config")
    settings = config.get("quantization_config") or config.get("compression_config")
    settings = settings or (inner.get("quantization_config") if isinstance(inner, dict) else None)
    if settings:
        method = settings.get("quant_method") if isinstance(settings, dict) else None
        bits = settings.get("bits") if isinstance(settings, dict) else None
        how = f"{method or 'method unknown'}{f', {bits} bits' if bits else ''}"
        yield (
            f"its weights are quantised ({how}), and quantised weights are not taken: they need a library of their own"
            " and are no longer the model's. Name the repository that it was quantised from, or save it dequantised"
        )


def _code_faults(config: dict[str, Any], names: Collection[str], trust_remote_code: bool) -> Iterator[str]:
    kind, known = config.get("model_type"), causal_model_types()
    auto_map = config.get("auto_map")
    own = auto_map.get("AutoModelForCausalLM") if isinstance(auto_map, dict) else None
    if own and trust_remote_code:
        file = f"{str(own).rpartition('--')[2].partition('.')[0]}.py"
        if "--" not in str(own) and file not in names:
            yield f"its {CONFIG} names code ({own}), and there is no {file} in it"
    elif known and kind not in known:
        if own:
            yield (
                f"it brings Python of its own ({own}), as transformers does not know {kind!r}: read it, then say"
                " trust_remote_code: true beside model"
            )
        else:
            hint = did_you_mean(kind, known).partition(" Possible:")[0] if isinstance(kind, str) else ""
            given = f"model_type {kind!r} in its {CONFIG}" if kind else f"what its {CONFIG} says, without a model_type,"
            yield f"{given} is no causal language model of the transformers installed here.{hint}"


def _architecture(config: dict[str, Any]) -> str:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else str(config.get("model_type"))


@cache
def causal_model_types() -> frozenset[str]:
    """-> the model types of transformers' causal language models, read from its source without importing it.

    Empty where the source is another than is known here: then nothing is told of a model type before it is loaded.
    """
    spec = importlib.util.find_spec("transformers")
    source = Path(spec.origin).parent / "models/auto/modeling_auto.py" if spec and spec.origin else None
    text = source.read_text(encoding="utf-8") if source and source.is_file() else ""
    block = re.search(r"^MODEL_FOR_CAUSAL_LM_MAPPING_NAMES = OrderedDict\(\s*\[(.*?)^\s*\]\s*\)", text, re.M | re.S)
    return frozenset(re.findall(r"""\(\s*"([^"]+)",""", block[1])) if block else frozenset()
