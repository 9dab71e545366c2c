"""Labels that are cut keep what tells them apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.report.labels import shortened

ALIKE = st.text(st.sampled_from("ab, =…"), max_size=30)
"""Few letters, so that labels share long stretches."""
WORDS = st.lists(st.sampled_from(["KD", "fine-tuned teacher", "baseline teacher", "lr=0.001", "lr=0.0001"]), max_size=5)
LABELS = st.lists(ALIKE | st.text(max_size=40) | WORDS.map(", ".join), min_size=1, max_size=8)


@given(LABELS, st.integers(1, 40))
def test_labels_are_cut_alike_only_where_they_were_alike(labels, length):
    cut = shortened(labels, length)
    whole = [" ".join(label.split()) for label in labels]
    assert [[one == other for other in cut] for one in cut] == [[one == other for other in whole] for one in whole]


@given(LABELS, st.integers(1, 40))
def test_a_label_that_fits_stays_whole(labels, length):
    for label, cut in zip(labels, shortened(labels, length), strict=True):
        whole = " ".join(label.split())
        assert cut == whole or len(whole) > length


@given(LABELS, st.integers(1, 40))
def test_what_is_left_of_a_label_is_parts_of_it_in_their_order(labels, length):
    for label, cut in zip(labels, shortened(labels, length), strict=True):
        rest = " ".join(label.split())
        for part in cut.split("…") if "…" not in rest else ():
            assert part in rest
            rest = rest[rest.index(part) + len(part) :]


@pytest.mark.parametrize(
    ("labels", "length", "cut"),
    [
        (
            ["KD, fine-tuned teacher, fine-tuned student", "KD, fine-tuned teacher, baseline student"],
            30,
            ["KD, fine-tuned… fine-tuned…", "KD, fine-tuned… baseline…"],
        ),
        (
            [f"KD, loss=skew_forward_kl (beta: {beta}), lr=0.001" for beta in ("0.1", "0.3")],
            30,
            ["KD, loss=skew_forward_k… 0.1)…", "KD, loss=skew_forward_k… 0.3)…"],
        ),
        (["one label, and nothing beside it"], 12, ["one label…"]),
    ],
)
def test_people_read_whole_words_where_there_is_room(labels, length, cut):
    assert shortened(labels, length) == cut
