"""What is told of tokenizers and chat templates once models are here, before anything is trained."""

import pytest
from support import tiny_models as tiny
from support.small_plans import prepared

from ablate.core.errors import StudyError
from ablate.planning.tokenizer_check import require_chat_templates

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
