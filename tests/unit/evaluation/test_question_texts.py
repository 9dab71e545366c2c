import gzip
import json

from ablate.evaluation.question_texts import END_OF_QUESTION, START_OF_CHOICE, packed, question_texts


def record(*arguments, doc_id=3):
    return {"doc_id": doc_id, "doc_hash": "abc", "arguments": arguments}


def test_of_a_choice_between_texts_the_question_and_every_choice_are_kept():
    (kept,) = question_texts([record(("Ada likes", " tea"), ("Ada likes", " milk"))])
    assert kept == {"doc_id": 3, "doc_hash": "abc", "question": "Ada likes", "choices": [" tea", " milk"]}


def test_of_a_blank_that_is_filled_in_the_choices_begin_where_the_texts_part():
    """As winogrande asks: the same end under two beginnings."""
    (kept,) = question_texts(
        [record(("The dog saw the bone, for Bo", " ran."), ("The dog saw the bone, for Bob", " ran."))]
    )
    assert kept["question"] == "The dog saw the bone, for "
    assert kept["choices"] == ["Bo ran.", "Bob ran."]


def test_a_choice_that_is_also_scored_without_its_question_stands_once():
    (kept,) = question_texts([record(("Ada likes", " tea"), ("Ada likes", " milk"), ("", " tea"), ("", " milk"))])
    assert (kept["question"], kept["choices"]) == ("Ada likes", [" tea", " milk"])


def test_a_long_prompt_keeps_its_end_and_a_long_choice_its_start_with_a_mark():
    (kept,) = question_texts([record(("a" * 2000 + "b?", "c" * 2000))])
    assert kept["question"] == "a" * (END_OF_QUESTION - 2) + "b?"
    assert kept["choices"] == ["c" * START_OF_CHOICE + "…"]


def test_a_question_under_several_filters_is_kept_once_and_a_text_to_be_written_never():
    asked = record(("Ada likes", " tea"))
    assert len(question_texts([asked, asked])) == 1
    assert question_texts([record(("Ada likes", {"until": []})), record(("a whole text",))]) == []


def test_the_file_is_lines_of_json_and_the_same_bytes_each_time():
    texts = question_texts([record(("Ada \N{SNOWMAN} \ud800 likes", " tea"))])
    assert packed(texts) == packed(texts)
    line = gzip.decompress(packed(texts)).decode("utf-8", "surrogatepass")
    assert json.loads(line) == texts[0]
