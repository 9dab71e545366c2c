"""What rows cost: every second is counted once for whoever needs it, and the front is what no other row beats."""

import csv
import io
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.report_study import bench

from ablate.report.axis_numbers import log_ticks, number_texts
from ablate.report.exhibits.base import OVERVIEWS
from ablate.report.exhibits.cost_points import points_of
from ablate.results.collect import collect
from ablate.results.row_costs import row_cost
from ablate.results.row_intervals import interval_of
from ablate.results.stage_times import seconds_of

TABLES = {
    "teacher": {"grid": {"distill.teacher": ["baseline", "finetuned"]}},
    "lr": {"grid": {"distill.lr": [1e-3, 3e-4]}},
    "again": {"grid": {"distill.lr": [1e-3, 1e-4]}},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    study = bench(tmp_path_factory.mktemp("costs"), ablations=TABLES, seeds=[0, 1])
    study.commit(*study.plan().cells)
    return collect(study.plan())


def needs(row):
    """Every stage that a row's evaluations rest on, by hand."""
    keys, todo = set(), [cell.cell.evaluate for cell in row.cells]
    while todo:
        stage = todo.pop()
        keys.add(stage.key)
        todo += stage.inputs.values()
    return keys


def test_a_rows_own_time_is_of_what_no_other_run_needs(results):
    seconds = seconds_of(results)
    rows = [row for ablation in results.ablations for row in ablation.rows]
    for row in rows:
        others = set().union(*(needs(other) for other in rows if other.run != row.run))
        cost = row_cost(results, row)
        assert cost.own_s == sum(seconds.get(key, 0) for key in needs(row) - others)
        assert cost.shared_s == sum(seconds.get(key, 0) for key in needs(row) & others)
        assert cost.whole_s == sum(seconds.get(key, 0) for key in needs(row))


def test_a_run_of_two_tables_costs_its_own_and_not_nothing(results):
    one, other = (
        row for ablation in results.ablations[1:] for row in ablation.rows if row.row.values.get("distill.lr") == 1e-3
    )
    assert row_cost(results, one) == row_cost(results, other)
    assert row_cost(results, one).own_s == 4 * 90  # two seeds, each trained and asked


def test_tokens_are_those_of_its_trainings_losses(results):
    row = next(row for row in results.ablations[0].rows if row.row.model == "distill")
    assert row_cost(results, row).tokens == 2 * 60 * 128 * 50


def test_before_any_work_there_is_no_cost(tmp_path):
    results = collect(bench(tmp_path).plan())
    assert all(row_cost(results, row) is None for ablation in results.ablations for row in ablation.rows)
    assert OVERVIEWS["cost-and-gain"](results) is None


def test_the_front_is_what_no_other_run_beats_in_both(results):
    metric = results.ablations[0].primary
    points, is_timed = points_of(results, metric)
    assert is_timed
    assert len({point.row.run for point in points}) == len(points) == 5  # 1e-3 of two tables once
    for point in points:
        beaten = any(
            other.whole <= point.whole
            and other.score.value >= point.score.value
            and (other.whole, other.score.value) != (point.whole, point.score.value)
            for other in points
        )
        assert point.is_front is not beaten


def test_figure_and_table_tell_the_same_numbers(results):
    piece = OVERVIEWS["cost-and-gain"](results)
    metric = results.ablations[0].primary
    lines = list(csv.DictReader(io.StringIO(piece.files["tables/cost-and-gain.csv"].decode())))
    by_name = {(row.row.ablation, row.row.name): row for ablation in results.ablations for row in ablation.rows}
    for line in lines:
        row = by_name[line["ablation"], line["row"]]
        interval = interval_of(row, metric)
        assert [float(line[name]) for name in ("score", "low", "high")] == list(interval[:3])
        assert float(line["own_seconds"]) == row_cost(results, row).own_s
        text = f"{100 * interval.value:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})".replace(
            "-", "\N{MINUS SIGN}"
        )
        assert piece.html.count(text) >= 2  # the dot's tip, and the table


# numbers along an axis


@given(st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=8))
def test_the_numbers_of_an_axis_are_all_plain_or_all_powers(values):
    texts = number_texts(values)
    assert all("10" in text and any(letter in "⁰¹²³⁴⁵⁶⁷⁸⁹" for letter in text) for text in texts) or all(
        set(text) <= set("0123456789.") for text in texts
    )


@given(st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=8))
def test_a_number_of_an_axis_says_its_value(values):
    plain = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻\N{MULTIPLICATION SIGN}", "0123456789-*")
    for value, text in zip(values, number_texts(values), strict=True):
        mantissa, _, exponent = text.translate(plain).rpartition("*")
        if any(letter in "⁰¹²³⁴⁵⁶⁷⁸⁹" for letter in text):
            assert float(mantissa or 1) * 10.0 ** int(exponent[2:]) == pytest.approx(value, rel=1e-5)
        else:
            assert float(text) == pytest.approx(value, rel=1e-5)


@given(st.floats(1e-12, 1e11), st.floats(1.001, 1e6))
def test_a_logarithmic_axis_has_ticks_within_it_few_and_apart(low, factor):
    ticks = log_ticks(low, low * factor)
    assert 2 <= len(ticks) <= 9
    assert all(low * 0.99 <= tick <= low * factor * 1.01 for tick in ticks)
    assert len(set(number_texts(ticks))) == len(set(ticks))


def test_learning_rates_are_never_written_in_two_ways():
    for rates in product([2e-2, 4e-3, 1e-4, 1e-5, 5e-6], repeat=3):
        assert len({"⁻" in text for text in number_texts(rates)}) == 1
