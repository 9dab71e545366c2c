"""What is told of tokenizers and chat templates once models are here, before anything is trained."""

import json

import pytest
from support import tiny_models as tiny
from support.planned import commit
from support.small_plans import plan_of, prepared
from support.two_tokenizers import CORPUS, byte_level, metaspace

from ablate.core.errors import StudyError
from ablate.planning.tokenizer_check import require_chat_templates, require_equal_tokenizers
from ablate.study.training_recipes import losses_across_tokenizers

TURNS = "{% for m in messages %}SYSTEM<{{ m.role }}>{{ m.content }}{% endfor %}"
ASKED = ("evaluate.apply_chat_template=true", "evaluate.system_instruction=Be brief.")


@pytest.fixture
def plan_with(tmp_path):
    """-> a plan whose student has a chat template of the test's."""

    def plan(template: str):
        templates = {"teacher": tiny.CHAT, "student": template}
        for name, text in templates.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "chat_template.jinja").write_text(text)
        plan = prepared(tmp_path, *ASKED, widths=(64, 32))
        for name, text in templates.items():
            tiny.tokenizer().save_pretrained(tmp_path / name)
            (tmp_path / name / "chat_template.jinja").write_text(text)
        return plan

    return plan


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (
            TURNS.replace("SYSTEM", "{% if m.role == 'system' %}{{ raise_exception('none') }}{% endif %}"),
            "refuses a system's",
        ),
        ("{{ messages[-1].content }}", "leaves a system's turn out"),
    ],
)
def test_an_instruction_that_a_model_would_not_see_is_told_before_anything_is_trained(plan_with, template, why):
    with pytest.raises(StudyError, match=f"system_instruction: the chat template of .*student.* {why}"):
        require_chat_templates(plan_with(template))


def test_an_instruction_that_every_model_sees_is_asked(plan_with):
    require_chat_templates(plan_with(tiny.CHAT))


# tokenizers


def _permuted(raw, settings):
    """Two words have each other's ids."""
    vocabulary = raw["model"]["vocab"]
    a, b = [name for name, token in vocabulary.items() if token in (270, 280)]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]


def _fewer_added(raw, settings):
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["content"] != "<|tool|>"]


def _padded(raw, settings):
    last = max(token["id"] for token in raw["added_tokens"])
    raw["added_tokens"].append(raw["added_tokens"][-1] | {"id": last + 1, "content": "<|reserved_0|>"})


SPLIT_DIGITS = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
BOS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|pad|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<|pad|>": {"id": "<|pad|>", "ids": [401], "tokens": ["<|pad|>"]}},
}
WAYS = {
    "another vocabulary": (byte_level(420), None, "vocabulary"),
    "as many other words": (byte_level(400, (*CORPUS[2:], "zebra zealous zen")), None, "vocabulary"),
    "ids permuted": (byte_level(), _permuted, "vocabulary: 2 differ"),
    "merges in another order": (byte_level(), lambda raw, _: raw["model"]["merges"].reverse(), "merges"),
    "fewer added tokens": (byte_level(), _fewer_added, "added tokens"),
    "a vocabulary filled up": (byte_level(), _padded, "added tokens"),
    "another end of sequence": (byte_level(), lambda _, settings: settings.update(eos_token="<|pad|>"), "eos_token"),
    "another begin of sequence": (byte_level(), lambda _, settings: settings.update(bos_token="<|pad|>"), "bos_token"),
    "a begin of sequence written": (byte_level(), lambda raw, _: raw.update(post_processor=BOS), "cut into other"),
    "another normalizer": (byte_level(), lambda raw, _: raw.update(normalizer={"type": "NFKC"}), "cut into other"),
    "lower case": (byte_level(), lambda raw, _: raw.update(normalizer={"type": "Lowercase"}), "cut into other"),
    "digits cut apart": (byte_level(), lambda raw, _: raw.update(pre_tokenizer=SPLIT_DIGITS), "cut into other"),
    "another family": (metaspace(), None, "vocabulary"),
}


def plan_of_two(folder, tokenizer, change, *overrides):
    """-> the plan of a byte-level student and a teacher with another tokenizer, whose files are changed."""
    plan = prepared(folder, *overrides, widths=(64, 32))
    byte_level().save_pretrained(folder / "student")
    tokenizer.save_pretrained(folder / "teacher")
    files = [folder / "teacher" / name for name in ("tokenizer.json", "tokenizer_config.json")]
    raw, settings = (json.loads(file.read_text()) for file in files)
    if change:
        change(raw, settings)
    for file, value in zip(files, (raw, settings), strict=True):
        file.write_text(json.dumps(value))
    return plan


@pytest.mark.parametrize("way", WAYS)
def test_tokenizers_that_differ_are_refused_and_the_way_out_is_named(tmp_path, way):
    tokenizer, change, words = WAYS[way]
    with pytest.raises(StudyError, match=words) as error:
        require_equal_tokenizers(plan_of_two(tmp_path, tokenizer, change))
    assert "teacher and " in str(error.value)
    assert "`distill: {loss: gold}` in the study (or dskd or uld)" in str(error.value)


@pytest.mark.parametrize("loss", losses_across_tokenizers())
def test_a_loss_across_tokenizers_takes_any_two(tmp_path, loss):
    plan = plan_of_two(tmp_path, metaspace(), None, f"distill.loss={loss}")
    require_equal_tokenizers(plan)
    distilled = [cell.trained for cell in plan.cells if cell.row.model == "distill"]
    assert {stage.inputs["teacher_rows"].inputs["student"] for stage in distilled} == {distilled[0].inputs["teacher"]}


def test_a_loss_across_tokenizers_needs_to_know_what_tokens_stand_for(tmp_path):
    plan = plan_of_two(tmp_path, metaspace(), None, "distill.loss=gold")
    (tmp_path / "teacher/tokenizer.json").unlink()
    with pytest.raises(StudyError, match=r"teacher has no tokenizer\.json"):
        require_equal_tokenizers(plan)


def test_equal_tokenizers_are_taken_however_many_rows_the_heads_have(tmp_path):
    require_equal_tokenizers(plan_of_two(tmp_path, byte_level(), None))


def test_rows_in_the_teachers_own_tokens_are_made_for_losses_across_tokenizers_alone(tmp_path):
    plans = {loss: prepared(tmp_path, f"distill.loss={loss}") for loss in ("forward_kl", "gold")}
    by_loss = {
        loss: [cell.trained for cell in plan.cells if cell.row.model == "distill"] for loss, plan in plans.items()
    }
    assert ["teacher_rows" in stage.inputs for stage in by_loss["forward_kl"]] == [False, False]
    assert ["teacher_rows" in stage.inputs for stage in by_loss["gold"]] == [True, True]
    tuned = {
        loss: next(cell.trained for cell in plan.cells if cell.row.model == "teacher/finetuned")
        for loss, plan in plans.items()
    }
    assert all(stage.inputs["teacher_adapter"] is tuned[loss] for loss, stages in by_loss.items() for stage in stages)
    assert tuned["gold"].inputs["rows"] is by_loss["gold"][0].inputs["teacher_rows"]
    assert tuned["forward_kl"].inputs["rows"] is by_loss["forward_kl"][0].inputs["rows"]
    assert [stage.kind for stage in plans["gold"].stages if stage.kind == "teacher_cache"] == []
    assert "gold has it read the rows in its own tokens" in plans["gold"].notes[0]


def test_every_stage_has_a_name_where_one_loss_of_several_crosses_tokenizers(tmp_path):
    losses = {"grid": {"distill.loss": ["forward_kl", "gold"]}}
    plan = prepared(tmp_path, ablations={"loss": losses | {"references": [], "control": "loss=gold"}})
    labels = {stage.key: plan.label(stage) for stage in plan.stages}
    crossing = next(cell.trained for cell in plan.cells if cell.trained and "teacher_rows" in cell.trained.inputs)
    assert labels[crossing.inputs["teacher_rows"].key].startswith("rows ")
    assert labels[crossing.inputs["teacher_adapter"].key] == "finetune p/teacher/finetuned@0"


@pytest.mark.parametrize(
    ("ours", "theirs", "is_apart"),
    [
        ((4, None), (4, None), False),
        ((4, None), (5, "a"), True),
        ((5, "a"), (5, "b"), True),
        ((5, "a"), (5, "a"), False),
        ((5, None), (5, "a"), False),  # rows of before, which do not tell
    ],
)
def test_conversations_that_are_other_texts_for_the_teacher_are_told_before_anything_is_trained(
    tmp_path, ours, theirs, is_apart
):
    plan = plan_of(tmp_path, "distill.loss=gold", "distill.teacher=baseline")
    for fetch in (stage for stage in plan.stages if stage.kind == "fetch"):
        commit(plan.store, fetch, manifest={"path": getattr(fetch.settings, "path", None)})
    distilled = next(cell.trained for cell in plan.cells if cell.row.model == "distill")
    for name, (num, each) in (("rows", ours), ("teacher_rows", theirs)):
        counts = {"rows": num, "tokens": 9, "loss_tokens": 9, "without_loss": 0}
        several = {"several_texts": each} if each else {}
        commit(plan.store, distilled.inputs[name], name, summary={"train": counts, "holdout": counts} | several)
    plan = plan_of(tmp_path, "distill.loss=gold", "distill.teacher=baseline")
    for name in ("teacher", "student"):
        byte_level().save_pretrained(tmp_path / name)
    if not is_apart:
        return require_equal_tokenizers(plan)
    with pytest.raises(StudyError, match=f"make {ours[0]} and {theirs[0]} texts .* data.answers: last"):
        require_equal_tokenizers(plan)
    return None
