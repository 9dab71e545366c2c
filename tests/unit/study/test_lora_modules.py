"""What a study may say of the modules that LoRA adapts, and what validate says of a model that lacks them."""

import time

import pytest
import yaml
from support import tiny_models as tiny
from support.small_plans import prepared

from ablate.core.errors import StudyError
from ablate.core.values import digest, identity
from ablate.planning.module_check import require_modules
from ablate.study.load import load
from ablate.study.local_modules import module_findings
from ablate.study.training_recipes import Lora

MODELS = {"teacher": "llama", "student": "llama"}


@pytest.fixture
def study(tmp_path):
    """Writes a study of two models on this disk, and loads it."""

    def load_with(models=MODELS, **parts):
        for name, family in models.items():
            tiny.save(tmp_path / name, family)
        (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n')
        data = {
            "name": "s",
            "data": {"source": "rows.jsonl"},
            "pairs": {"p": {"teacher": {"model": "./teacher"}, "student": {"model": "./student"}}},
            "evaluate": {"tasks": ["hellaswag"]},
            "ablations": {"one": {"grid": {"distill.kd_ratio": [0.25, 0.5]}}},
        }
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(data | parts, sort_keys=False))
        return load(tmp_path / "s.yaml")

    return load_with


def problems(study, **parts):
    with pytest.raises(StudyError) as caught:
        study(**parts)
    return [str(problem).partition("s.yaml:")[2] for problem in caught.value.problems]


def lora(**settings):
    return {"lora": {"rank": 4, "alpha": 8} | settings}


# one spelling, one key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"target_modules": "all-linear"}, {"target_modules": ["All-Linear"]}),
        ({"target_modules": ".*(q|v)_proj"}, {"target_modules": [".*(q|v)_proj"]}),
        ({"target_modules": ["b", "a(1|2)"]}, {"target_modules": ["a(1|2)", "b", "b"]}),
        ({"modules_to_save": ["x", "y"]}, {"modules_to_save": ["y", "x", "x"]}),
        ({}, {"use_dora": False, "use_rslora": False, "modules_to_save": []}),
    ],
)
def test_the_same_modules_are_one_key_however_they_are_written(one, other):
    assert digest(identity(Lora(**one))) == digest(identity(Lora(**other)))


@pytest.mark.parametrize("used", [{"use_dora": True}, {"use_rslora": True}, {"modules_to_save": ["norm"]}])
def test_what_changes_a_result_changes_the_key(used):
    assert digest(identity(Lora(**used))) != digest(identity(Lora()))


# what cannot be meant


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target_modules": "q_proj"}, "a list is expected, got 'q_proj': write [q_proj]"),
        ({"target_modules": ["all-linear", "lm_head"]}, "nothing can stand beside it"),
        ({"target_modules": [".*(q|v_proj"]}, "is no regular expression: missing ), unterminated subpattern"),
        ({"target_modules": ["x" * 1000 + "+"]}, "a pattern of 1001 characters; 1000 are the most"),
        ({"target_modules": [7]}, "text is expected, got 7: put it in quotes"),
        ({"target_modules": [""]}, "a name of a module is expected, got an empty text"),
        ({"modules_to_save": "lm_head"}, "a list is expected, got 'lm_head': write [lm_head]"),
        ({"use_dora": "yes"}, "true or false is expected, got 'yes'"),
        ({"r": 8}, "unknown key 'r' in train.lora. Write rank."),
        ({"layers_to_transform": [1]}, "Name the layers in target_modules, by a pattern such as"),
        ({"rank_pattern": {"q_proj": 8}}, "One rank for all modules is what is supported."),
        ({"bias": "all"}, "Biases stay as they are (peft's bias: none), or lora: none trains every weight."),
        ({"use_dorra": True}, "Did you mean 'use_dora'?"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_told_with_its_place(study, settings, words):
    (problem,) = problems(study, train=lora(**settings))
    assert words in problem
    assert problem.split(":")[0].isdigit()


def test_a_pattern_that_never_ends_is_told_in_seconds(study):
    started = time.process_time(), time.monotonic()
    (problem,) = problems(study, train=lora(target_modules=[r"(\w*\.?)*\1(x+)+y"]))
    assert "a repeat within a repeat" in problem
    assert time.process_time() - started[0] < 2  # of ours; the pattern's own process is ended after as much


# what a model lacks


def test_all_linear_and_patterns_fit_models_of_other_names(study):
    for models in (MODELS, {"teacher": "gpt2", "student": "gpt2"}, {"teacher": "qwen2", "student": "gemma2"}):
        study(models, train=lora(target_modules="all-linear"))
    study({"teacher": "gpt2", "student": "gpt2"}, train=lora(target_modules=r".*\.attn\.c_(attn|proj)"))
    study({"teacher": "gpt2", "student": "gpt2"}, train=lora(target_modules=r"transformer\.h\.1\..*"))


def test_a_module_that_a_model_lacks_is_told_where_it_is_said_with_those_it_has(study, tmp_path):
    (problem,) = problems(
        study,
        train=lora(target_modules=["q_proj"]),
        distill=lora(target_modules=["q_proj", "qproj", "c_attn"]),
    )
    assert "distill.lora.target_modules: the model (student) has no linear module 'c_attn' or 'qproj'" in problem
    assert "down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj" in problem
    line = int(problem.split(":")[0])
    assert (tmp_path / "s.yaml").read_text().splitlines()[line - 2 : line + 1] == [
        "    target_modules:",
        "    - q_proj",
        "    - qproj",
    ]


def test_a_default_that_does_not_fit_is_told_once_a_model(study):
    told = problems(study, models={"teacher": "gpt2", "student": "gpt2"})
    assert [problem.partition("(")[2].partition(")")[0] for problem in told] == ["student", "teacher"]
    assert all("'down_proj' or 'gate_proj'" in problem and "all-linear" in problem for problem in told)


def test_a_module_is_told_of_the_model_that_is_trained_with_it_alone(study):
    distill = lora(target_modules=["down_proj"]) | {"teacher": "baseline"}
    study({"teacher": "gpt2", "student": "llama"}, distill=distill, train={"lora": None})
    (problem,) = problems(
        study,
        models={"teacher": "gpt2", "student": "llama"},
        train={"lora": None},
        distill=distill,
        ablations={"one": {"grid": {"distill.lora.target_modules": [["q_proj"], ["c_attn"]]}}},
    )
    assert "ablations.one.grid.distill.lora.target_modules" in problem
    assert "the model (student) has no linear module 'c_attn'" in problem


def test_a_pattern_that_fits_no_module_is_told_with_a_name_as_it_is_matched(study):
    told = problems(study, train=lora(target_modules="self_attn.(q|v)_proj"))
    assert any("matches none of the 15 linear modules of the model (student)" in problem for problem in told)
    assert all("begins with .*" in problem and ".layers." in problem for problem in told)


def test_modules_to_save_are_looked_up_and_tied_ones_refused(study):
    study(train=lora(target_modules="all-linear", modules_to_save=["lm_head", "norm"]))
    told = problems(study, train=lora(target_modules="all-linear", modules_to_save=["embed_token"]))
    assert all("no module 'embed_token'. Did you mean 'embed_tokens'" in problem for problem in told)
    for name in ("embed_tokens", "lm_head"):
        tied = {"teacher": "llama_tied", "student": "llama_tied"}
        told = problems(study, models=tied, train=lora(target_modules="all-linear", modules_to_save=[name]))
        assert all("shares its weights with" in problem and "lora: none" in problem for problem in told)


def test_an_adapter_on_a_tied_head_is_told(study):
    tied = {"teacher": "llama_tied", "student": "llama_tied"}
    told = problems(study, models=tied, train=lora(target_modules=["q_proj", "lm_head"]))
    assert all("'lm_head' of the model" in problem and "leave it out" in problem for problem in told)


def test_a_fetched_model_that_lacks_a_module_is_told_before_anything_is_trained(tmp_path):
    plan = prepared(tmp_path)
    require_modules(plan)  # of models without any name nothing is known
    tiny.make("gpt2").save_pretrained(tmp_path / "student")
    with pytest.raises(StudyError, match=r"lora.target_modules: the model \(.*student.*\) has no linear module 'down"):
        require_modules(plan)


def test_of_a_checkpoint_that_cannot_be_read_nothing_is_said_here(tmp_path):
    folder = tiny.save(tmp_path / "model")
    lora = Lora(target_modules=["nowhere"], modules_to_save=["nothing"])
    assert len(list(module_findings(lora, folder))) == 2
    weights = folder / "model.safetensors"
    for torn in (weights.read_bytes()[:50], b"", b"\xff" * 64):
        weights.write_bytes(torn)
        assert not list(module_findings(lora, folder))
    weights.unlink()
    assert not list(module_findings(lora, folder))


def test_weights_that_are_not_loaded_name_no_modules(tmp_path):
    tiny.save(tmp_path / "model", "gpt2")
    tiny.save(tmp_path / "other", "llama")
    (tmp_path / "other" / "model.safetensors").rename(tmp_path / "model" / "model_of_before.safetensors")
    ((field, message),) = module_findings(Lora(target_modules=("q_proj",)), tmp_path / "model")
    assert field == "target_modules"
    assert "c_attn" in message
