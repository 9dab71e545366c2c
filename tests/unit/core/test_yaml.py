"""YAML: plain values with positions, within limits; whatever a file holds, only a StudyError comes of it."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.core.errors import Place, StudyError
from ablate.core.yaml import MAX_BYTES, dump, parse, read


def _parse(text: str):
    return parse(text, lambda line, column: Place("x.yaml", line, column))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-3", -3),
        ("0x1F", 31),
        ("010", 10),
        ("+1.5e+3", 1500.0),
    ],
)
def test_a_number_is_a_number_however_it_is_written(text, value):
    data = _parse(f"a: {text}").data["a"]
    assert data == value
    assert type(data) is type(value)


@pytest.mark.parametrize(
    "text", ["on", "off", "yes", "no", "2026-11-24", "12:30:45", "1_000", "1e", "e5", ".", "-x", "0o8"]
)
def test_what_yaml_1_1_took_for_something_else_is_text(text):
    assert _parse(f"a: {text}").data == {"a": text}


def test_true_and_null_are_what_they_say():
    assert _parse("[true, False, null, ~, ]").data == [True, False, None, None]


def test_every_key_and_value_has_the_place_where_it_was_written():
    document = _parse("a: 1\nb:\n  - x\n  - {c: 2}\n")
    assert document.keys["b",] == Place("x.yaml", 2, 1)
    assert document.values["b", 1, "c"] == Place("x.yaml", 4, 9)
    assert document.place(("b", 1, "missing")) == Place("x.yaml", 4, 5)


def test_an_alias_has_the_value_and_place_of_its_anchor():
    document = _parse("a: &x {b: 1}\nc: *x\n")
    assert document.data == {"a": {"b": 1}, "c": {"b": 1}}
    assert document.values["c", "b"].line == 1


def test_a_file_over_the_limit_is_refused_before_it_is_parsed(tmp_path):
    path = tmp_path / "big.yaml"
    path.write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(StudyError, match="larger than"):
        read(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["[" * 200_000, "{a: " * 50_000, "- " * 100_000, "'a'\n" * 100_000, "[a, " * 60 + "b, " * 50_000]
)
def test_a_hostile_file_is_refused_quickly(text):
    with pytest.raises(StudyError):
        _parse(text)


@pytest.mark.parametrize(
    "text", [r'"\UFFFFFFFF"', r'"\uD800"', r'"\x00"', "a: \x85\x01", "!<%FF> a", "%YAML 3.0\n---\na", "&a", "9" * 5000]
)
def test_an_odd_scalar_never_gives_a_traceback(text):
    try:
        document = _parse(text)
    except StudyError:
        return
    dump(document.data).encode()


WORDS = st.sampled_from(
    [
        "name",
        ": ",
        "\n",
        "  ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "&a",
        "*a",
        "!!str ",
        "!x ",
        "|",
        ">",
        "\t",
        "'",
        '"',
        "#",
        "---",
        "...",
        "%",
        "?",
        "<<",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.lists(st.one_of(WORDS, st.text(max_size=4)), max_size=40).map("".join), st.text(max_size=80)))
def test_whatever_the_text_the_answer_is_values_or_a_study_error(text):
    with contextlib.suppress(StudyError):
        _parse(text)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_whatever_the_bytes_the_answer_is_values_or_a_study_error(tmp_path_factory, raw):
    path: Path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(raw)
    with contextlib.suppress(StudyError):
        read(path)


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
PLAIN = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXT,
        st.sampled_from(["1e-4", "on", "null", ".5", "1:2"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(TEXT.filter(lambda key: key != "<<"), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(PLAIN)
def test_what_is_dumped_reads_back_as_it_was(value):
    document = _parse(dump({"value": value}))
    assert document.problems == ()
    assert document.data == {"value": value}
