import json

import pytest
from support.report_study import bench

from ablate.results.collect import collect
from ablate.results.task_texts import repetition, task_texts


def by_hand(text):
    """-> the share of runs of four words that stood in the text before, one run after the other."""
    words, seen, num = text.split(), [], 0
    for start in range(len(words) - 3):
        run = words[start : start + 4]
        num += run in seen
        seen.append(run)
    return num / len(seen) if seen else 0.0


@pytest.mark.parametrize(
    "text", ["", "a b c", "a b c d", "a b c d a b c d a b c d", "a a a a a a", "to be or not to be or not to"]
)
def test_repetition_is_what_counting_run_by_run_gives(text):
    assert repetition(text) == pytest.approx(by_hand(text))


def test_the_texts_of_a_task_are_summed_with_those_that_are_empty_and_those_in_which_a_filter_saw_an_answer(tmp_path):
    study = bench(tmp_path, ablations={"one": {"grid": {"distill.lr": [1e-3]}}})
    for cell in study.plan().cells:
        study.commit_evaluation(cell, has_texts=True)
    results = collect(study.plan())
    row = results.ablations[0].rows[-1]
    path = row.done[0].samples("commonsense_qa")
    written = [
        ("#### 4", "4", 3, True),
        ("well", "[invalid]", 1, True),
        ("  ", "", 0, True),
        ("a b c d a b c d", "[invalid]", 9, False),
    ]
    path.write_text("".join(
        json.dumps({"doc_id": at, "doc_hash": "", "scores": {}, "extracted": {"strict": found},
                    "written": [{"text": text, "num_tokens": num, "has_ended": ended}]}) + "\n"
        for at, (text, found, num, ended) in enumerate(written)
    ))  # fmt: skip
    one = next(one for one in task_texts(results.ablations[0]) if one.row is row)
    assert (one.num, one.num_cut, one.num_empty, one.median_tokens) == (4, 1, 1, 2)
    assert one.num_tokens == 13 / 4
    assert one.num_characters == (6 + 4 + 2 + 15) / 4
    assert one.repetition == pytest.approx(0.2 / 4)
    assert one.extracted == {"strict": 0.25}
    older = next(other for other in task_texts(results.ablations[0]) if other.row is not row)
    assert older.extracted == {}
