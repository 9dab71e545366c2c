"""Study files that went wrong anywhere: mistakes that are told, never a traceback, in little time and memory."""

import copy
import resource
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.paths import TINY

from ablate.core.errors import AblateError
from ablate.planning.project import open_study
from ablate.planning.warnings import study_warnings

MOST_S, MOST_BYTES = 10.0, 1 << 30
REAL = yaml.safe_load(TINY.read_text())
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        [
            *("", "..", "/", "../../etc/passwd", "builtin:", "builtin:tiny/..", "a/b", "con", "-x", "=1+1", "{{a}}"),
            *("\u202e", "x" * 300, "1e400", "finetuned", "baseline", "\u00e9", "e\u0301", "A", 1e308, -1, 10**30),
            *([], {}, [[]], [{}], {"": 1}, {"grid": {}}, ["a"] * 50, list(range(200)), {"a": {"b": {"c": {}}}}),
        ]
    ),
)


def places(data, at=()):
    """-> the path of every value."""
    yield at
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inner:
        yield from places(value, (*at, key))


PLACES = [at for at in places(REAL) if at]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(PLACES), st.sampled_from(["set", "drop", "rename", "copy"]), ODD, st.sampled_from(PLACES)
    ),
    min_size=1,
    max_size=4,
)


def changed(data, at, how, odd, other):
    """One edit, where its place is still there."""
    try:
        around = data
        for key in at[:-1]:
            around = around[key]
        if how == "set":
            around[at[-1]] = odd
        elif how == "copy":
            value = data
            for key in other:
                value = value[key]
            around[at[-1]] = copy.deepcopy(value)
        else:
            value = around.pop(at[-1])
            if how == "rename" and isinstance(around, dict):
                around[str(odd)] = value
    except (KeyError, IndexError, TypeError, AttributeError):
        return


@pytest.fixture
def little_memory():
    """MemoryError once this process grows by more than a study may take."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def plan_or_refuse(path: Path, text: str) -> None:
    """Plans a study, or has its mistakes told: anything else is raised."""
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    began, mistakes = time.process_time(), "none"
    try:
        project = open_study(path, path.parent)
        study_warnings(project.study, project.rows)
        project.plan(is_online=False)
    except AblateError as error:
        mistakes = str(error)
    assert mistakes
    assert time.process_time() - began < MOST_S


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EDITS)
def test_a_study_that_went_wrong_anywhere_is_planned_or_told(tmp_path, little_memory, edits):
    data = copy.deepcopy(REAL)
    for edit in edits:
        changed(data, *edit)
    plan_or_refuse(tmp_path / "s.yaml", yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(TINY.read_text())), st.integers(0, 40), st.text(max_size=5))
def test_a_study_file_with_a_piece_cut_out_or_typed_in_is_planned_or_told(tmp_path, little_memory, at, length, typed):
    text = TINY.read_text()
    plan_or_refuse(tmp_path / "s.yaml", text[:at] + typed + text[at + length :])


MANY = {f"a{n}": {"grid": {"distill.kd_ratio": [i / 1000 for i in range(100)], "train.seed": [0]}} for n in range(50)}


@pytest.mark.parametrize(
    "large",
    [
        {"ablations": {"a": {"grid": {"distill.kd_ratio": [n / 1e4 for n in range(1000)]}}}},
        {"ablations": {"a": {"grid": {f"distill.{k}": list(range(40)) for k in ("lr", "kd_ratio", "epochs")}}}},
        {"ablations": MANY},
        {"seeds": list(range(9000))},
        {"ablations": {f"a{n}": {"set": {"distill.lr": 1e-4}} for n in range(3000)}},
        {"pairs": REAL["pairs"] | {f"p{n}": REAL["pairs"]["small"] for n in range(300)}},
    ],
)
def test_a_study_as_large_as_a_file_can_be_takes_no_more_time_and_memory(tmp_path, little_memory, large):
    plan_or_refuse(tmp_path / "s.yaml", yaml.safe_dump(REAL | large, sort_keys=False))
