"""What never ends is ended, and told by its name."""

import re
import time

import pytest
from lm_eval import utils
from lm_eval.api import metrics
from lm_eval.filters import extraction
from support.asking import ENDINGS, write_tasks

from ablate.core.errors import StageError
from ablate.core.time_limit import TooLong, Watch
from ablate.evaluation import limits, tasks

ENDLESS = r"(a+)+$"
LONG = "a" * 40 + "b"


@pytest.fixture
def limited(monkeypatch):
    monkeypatch.setattr(limits, "LIMIT_S", 0.2)
    with limits.endless_is_ended():
        yield


def choices(text, **settings):
    return extraction.MultiChoiceRegexFilter(**settings).apply([[text]], [{"choices": ["x", "y"]}])


@pytest.mark.parametrize(
    "search",
    [
        lambda: extraction.RegexFilter(ENDLESS).apply([[LONG]], [{}]),
        lambda: choices(LONG, regex_pattern=ENDLESS),
        lambda: choices(LONG, regexes_to_ignore=[ENDLESS]),
        lambda: metrics.exact_match_hf_evaluate([LONG], ["x"], regexes_to_ignore=[ENDLESS]),
        lambda: utils.apply_template("{{ text | regex_replace('(a+)+$', '') }}", {"text": LONG}),
    ],
)
def test_a_pattern_that_never_ends_is_ended_and_named(limited, search):
    began = time.process_time()
    with pytest.raises(TooLong, match=r"\(a\+\)\+\$.* has not come to an end in 0\.2 s of computing"):
        search()
    assert time.process_time() - began < 5


def test_a_template_that_never_ends_is_ended_and_named(limited):
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(TooLong, match=r"the template '{% for i in range"):
        utils.apply_template(endless, {})


def test_patterns_and_templates_say_what_they_say_without_a_limit(limited):
    assert extraction.RegexFilter(r"(\d+)").apply([["1 and 2"], ["none"]], [{}, {}]) == [["1"], ["[invalid]"]]
    assert choices("it is (B)", regex_pattern=r"(\([A-Z]\))") == [["(B)"]]
    assert utils.apply_template("{{ 'a1' | regex_replace('[0-9]', 'x') }}", {}) == "ax"


def test_many_short_calls_may_last_as_long_as_they_like():
    with Watch(0.1).looking() as watch:
        began = time.process_time()
        while time.process_time() - began < 0.6:
            watch.call(lambda: "one", re.findall, "a", "a" * 1000)


def test_what_calls_something_watched_again_and_again_is_ended_itself():
    def endless():
        while True:
            watch.call(lambda: "the inner one", re.findall, "a", "a" * 100)

    with Watch(0.1).looking() as watch, pytest.raises(TooLong, match="the outer one"):
        watch.call(lambda: "the outer one", endless)


def test_a_task_whose_pattern_never_ends_fails_with_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "LIMIT_S", 0.2)
    endless = "{{ ('a' * 40 + 'b') | regex_replace('(a+)+$', '') }}"
    folder = write_tasks(tmp_path / "tasks", endings=ENDINGS.replace("{{context}}", endless))
    with limits.endless_is_ended(), pytest.raises(StageError, match=r"own_endings cannot be set up: .*\(a\+\)\+\$"):
        tasks.Tasks(["own_endings"], {}, folder).load_one("own_endings")
    assert extraction.re is metrics.re is utils.re is re
    assert "from_string" not in vars(utils.env)
