import json
import math

import numpy as np
import pytest

from ablate.results import calibration
from ablate.results.choice_answers import read_answers
from ablate.results.question_scores import NotComparable


def samples_file(folder, records, name="task"):
    path = folder / "out" / "samples" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def drawn(seed, num=300, num_choices=4, sharpness=1.0, num_groups=None):
    """-> records of a model whose confidence is right at sharpness 1, too high above it."""
    draw = np.random.default_rng(seed)
    records = []
    for doc_id in range(num):
        logits = draw.normal(scale=1.5, size=num_choices)
        p = np.exp(logits) / np.exp(logits).sum()
        right = int(draw.choice(num_choices, p=p))
        said = (logits * sharpness - 5).tolist()
        record = {"doc_id": doc_id, "doc_hash": f"{doc_id}", "loglikelihoods": said, "target": right}
        record |= {"scores": {"acc": float(np.argmax(said) == right)}, "finer": {"log_probability": said[right]}}
        records.append(record | ({"cluster": f"{doc_id % num_groups}"} if num_groups else {}))
    return records


def by_hand(records, num_bins=10):
    """-> ECE by Guo's formula and the Brier score, question by question, without numpy."""
    bins = [[] for _ in range(num_bins)]
    brier = 0.0
    for record in records:
        weights = [math.exp(value - max(record["loglikelihoods"])) for value in record["loglikelihoods"]]
        p = [weight / sum(weights) for weight in weights]
        number = next(m for m in range(num_bins) if max(p) <= (m + 1) / num_bins or m == num_bins - 1)
        bins[number].append((max(p), record["scores"]["acc"]))
        brier += sum((value - (k == record["target"])) ** 2 for k, value in enumerate(p))
    ece = 0.0
    for own in (own for own in bins if own):
        accuracy, confidence = sum(right for _, right in own) / len(own), sum(p for p, _ in own) / len(own)
        ece += len(own) / len(records) * abs(accuracy - confidence)
    return ece, brier / len(records)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_calibration_error_and_brier_score_are_what_counting_by_hand_gives(tmp_path, sharpness):
    records = drawn(1, sharpness=sharpness)
    one = calibration.confidence(read_answers(samples_file(tmp_path, records)))
    ece, brier = by_hand(records)
    assert error_of(one) == pytest.approx(ece)
    assert one.brier == pytest.approx(brier)


def test_bins_of_equal_mass_hold_equally_many_answers():
    top = np.random.default_rng(0).random(1003)
    sizes = np.bincount(calibration.equal_mass(top))
    assert len(sizes) == calibration.NUM_BINS
    assert sizes.max() - sizes.min() <= 1
    assert all(
        top[calibration.equal_mass(top) == m].max() <= top[calibration.equal_mass(top) == m + 1].min() for m in range(9)
    )


def test_what_chance_alone_shows_is_what_perfectly_calibrated_models_show_on_average(tmp_path):
    draw = np.random.default_rng(3)
    top = draw.uniform(0.3, 1, 400)
    bins = calibration.equal_width(top)
    shown = [calibration.expected_error(top, (draw.random(400) < top).astype(float), bins) for _ in range(2000)]
    assert calibration._by_chance(top) == pytest.approx(np.mean(shown), rel=0.03)


@pytest.mark.parametrize(("sharpness", "num_groups"), [(1.0, None), (1.4, None), (3.0, None), (1.4, 60)])
def test_the_interval_holds_the_error_of_very_many_questions(sharpness, num_groups):
    """93 to 98 % in 500 studies of several sizes; percentiles alone would never hold an error of 0."""
    truth = 0.0 if sharpness == 1.0 else error_of(confident(0, 400_000, sharpness))
    intervals = [calibration._interval([confident(seed, 300, sharpness, num_groups)]) for seed in range(1, 201)]
    assert sum(low <= truth <= high for low, high in intervals) >= 0.9 * 200


@pytest.mark.parametrize(("num", "num_groups"), [(1, None), (40, 1)])
def test_one_question_or_one_cluster_has_no_interval(num, num_groups):
    assert np.isnan(calibration._interval([confident(1, num, 1.0, num_groups)])).all()


def confident(seed, num, sharpness, num_groups=None):
    """-> answers of a model whose confidence is right at sharpness 1."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(scale=1.5, size=(num, 4))
    said, true = (np.exp(logits * power) / np.exp(logits * power).sum(1, keepdims=True) for power in (sharpness, 1))
    is_right = draw.random(num) < true[np.arange(num), said.argmax(1)]
    groups = np.arange(num) if num_groups is None else np.arange(num) % num_groups
    return calibration.Confidence(said.max(1), is_right.astype(float), groups, math.nan)


def error_of(one):
    return calibration.expected_error(one.top_N, one.is_right_N, calibration.equal_width(one.top_N))


def test_an_answer_sure_of_what_is_right_misses_nothing(tmp_path):
    records = drawn(0)
    for record in records:
        record |= {"loglikelihoods": [-60.0, 0.0, -60.0, -60.0], "target": 1, "scores": {"acc": 1.0}}
        record["finer"] = {"log_probability": 0.0}
    one = calibration.confidence(read_answers(samples_file(tmp_path, records)))
    assert error_of(one) < 1e-12
    assert one.brier < 1e-12
    assert calibration._interval([one])[0] == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda record: record["scores"].update(acc=0.5), "share"),
        (lambda record: record.update(loglikelihoods=record["loglikelihoods"][:1]), "no choices"),
        (lambda record: record.pop("loglikelihoods"), "no choices"),
        (lambda record: record["scores"].pop("acc") and record["scores"].update(em=1.0), "no acc"),
        (lambda record: record["scores"].update(acc=1 - record["scores"]["acc"]), "likeliest"),
        (lambda record: record.update(loglikelihoods=["-Infinity"] * 4, finer={}), "no number"),
    ],
)
def test_a_task_without_a_confidence_to_be_read_says_why(tmp_path, change, why):
    records = drawn(0, num=20)
    for record in records:
        record["scores"].setdefault("acc", 0.0)
        change(record)
    if why == "no acc":
        for record in records:
            record["scores"] = {"em": 1.0}
    with pytest.raises(NotComparable, match=why):
        calibration.confidence(read_answers(samples_file(tmp_path, records)))


def test_choices_that_were_scored_again_without_their_question_are_no_choices(tmp_path):
    """acc_mutual_info has lm-eval ask for each choice alone too."""
    records = drawn(2)
    doubled = [
        record | {"loglikelihoods": [*record["loglikelihoods"], 0.0, 0.0, 0.0, 0.0], "finer": {}} for record in records
    ]
    for record in doubled:
        record["scores"] = record["scores"] | {"acc_mutual_info": 0.0}
    one, other = (calibration.confidence(read_answers(samples_file(tmp_path, given, name)))
                  for name, given in (("a", records), ("b", doubled)))  # fmt: skip
    assert np.array_equal(one.top_N, other.top_N)
