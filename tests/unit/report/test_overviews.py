"""The whole study at a glance: what was run, when, on what, and what it cost."""

import re
from itertools import pairwise

import pytest
from support.report_study import ONE_TABLE, bench

from ablate.report import picture_files, plot_style
from ablate.report.exhibits import costs, timeline
from ablate.report.exhibits.base import OVERVIEWS
from ablate.report.exhibits.lineage import Lineage
from ablate.report.exhibits.timeline import Bar
from ablate.report.write import write_report
from ablate.results.collect import collect
from ablate.results.stage_times import provenance, seconds_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    study = bench(tmp_path_factory.mktemp("finished"))
    study.commit(*study.plan().cells)
    return study.plan()


def bar(begin, end, host="here", device="a card"):
    return Bar(f"{begin}", "distill", host, device, begin, end)


# when


def test_a_stage_that_had_several_cards_stands_in_the_lane_of_each():
    assert timeline._spots({"slot": "gpu 0 + gpu 1", "cards": ["gpu 0", "gpu 1"]}) == ["gpu 0", "gpu 1"]
    assert timeline._spots({"slot": "gpu 0"}) == ["gpu 0"]
    assert timeline._spots({"slot": "a100 1", "profile": "a100", "job": "17"}) == ["a100 17"]
    assert timeline._spots({}) == [""]


def test_every_finished_stage_is_on_the_time_line_once_and_no_lane_holds_two_at_once(finished):
    bars = timeline.bars_of(collect(finished))
    lanes = timeline.lanes_of(bars)
    assert len(bars) == sum(len(lane) for lane in lanes) == len(finished.work)
    assert len(lanes) == 2  # a stage begins each minute and takes one and a half
    for lane in lanes:
        assert all(after.begin >= before.end for before, after in pairwise(lane))


def test_each_device_has_lanes_of_its_own():
    bars = [bar(0, 10, device="one"), bar(10, 20, device="two"), bar(20, 30, device="one")]
    assert [[one.device for one in lane] for lane in timeline.lanes_of(bars)] == [["one", "one"], ["two"]]


def placed(begin, host, spot, device="A100"):
    return Bar(f"{begin}", "distill", host, device, begin, begin + 5, spot)


def test_each_card_and_each_job_has_lanes_of_its_own_in_order_and_is_named_once():
    bars = [
        placed(0, "node10", "a100 1234_10"), placed(1, "node10", "a100 1234_9"), placed(2, "node2", "a100 77"),
        placed(3, "login", "gpu 1", "H100"), placed(4, "login", "gpu 0", "H100"), placed(5, "login", "gpu 0", "H100"),
    ]  # fmt: skip
    lanes = timeline.lanes_of(bars)
    assert [(lane[0].host, lane[0].spot) for lane in lanes] == [
        ("login", "gpu 0"), ("login", "gpu 0"), ("login", "gpu 1"), ("node2", "a100 77"), ("node10", "a100 1234_9"),
        ("node10", "a100 1234_10"),
    ]  # fmt: skip
    assert list(timeline._names(lanes)) == [
        "login: gpu 0, H100", "", "login: gpu 1, H100", "node2: a100 77, A100", "node10: a100 1234_9, A100",
        "node10: a100 1234_10, A100",
    ]  # fmt: skip


def test_a_lane_of_the_only_host_with_one_sort_of_device_is_called_by_its_card_or_as_ever_by_the_device():
    lanes = timeline.lanes_of([placed(0, "here", "gpu 0"), placed(1, "here", "gpu 1")])
    assert list(timeline._names(lanes)) == ["gpu 0", "gpu 1"]
    assert list(timeline._names(timeline.lanes_of([bar(0, 9), bar(0, 9)]))) == ["a card", ""]


def test_a_lane_is_called_without_the_domain_of_its_host_and_the_maker_of_its_card():
    far = [
        placed(number, f"gpu-a100-00{number}.cluster.example.org", f"a100 48151623_{number}", "NVIDIA A100-SXM4-80GB")
        for number in range(2)
    ]
    lanes = timeline.lanes_of([*far, placed(3, "login1.cluster.example.org", "gpu 0", "NVIDIA H100 80GB HBM3")])
    assert list(timeline._names(lanes)) == [
        "gpu-a100-000: a100 48151623_0, A100-SXM4-80GB", "gpu-a100-001: a100 48151623_1, A100-SXM4-80GB",
        "login1: gpu 0, H100 80GB HBM3",
    ]  # fmt: skip
    alike = timeline.lanes_of([placed(0, "n1.one.example", "gpu 0"), placed(1, "n1.two.example", "gpu 0")])
    assert list(timeline._names(alike)) == ["n1.one.example: A100", "n1.two.example: A100"]


def test_of_hundreds_of_jobs_the_lanes_are_those_of_the_hosts_and_the_bytes_are_the_same_each_time():
    bars = [placed(6 * number, f"node{number % 3}", f"a100 <{number}> $x$") for number in range(200)]
    lanes = timeline.drawn_lanes(bars)
    assert [lane[0].place for lane in lanes] == [(f"node{number}", "", "A100") for number in range(3)]
    few = timeline.drawn_lanes(bars[:5])
    with plot_style.applied():
        first, second = (picture_files.inline_svg(timeline._figure(bars[:5], few), "when", "") for _ in range(2))
    assert first == second
    assert "&lt;3&gt; $x$" in first
    assert "<3>" not in first


def test_only_a_pause_that_is_long_beside_the_work_is_cut_out():
    bars = [bar(0, 1000), bar(1010, 2000), bar(90_000, 91_000)]
    assert [(pause.begin, pause.end) for pause in timeline.pauses_of(bars)] == [(2000, 90_000)]


def test_what_ran_beside_it_is_no_pause():
    assert timeline.pauses_of([bar(0, 10_000), bar(10, 20), bar(9000, 9500)]) == []


def test_the_scale_counts_work_alone():
    bars = [bar(0, 600), bar(90_000, 90_300)]
    scale = timeline.scale_of(bars)
    assert scale.unit == "minutes"
    assert [scale.at(time) for time in (0, 600, 45_000, 90_000, 90_300)] == [0, 10, 10, 10, 15]


# what


def test_each_model_has_the_line_of_its_evaluation(finished):
    tree = Lineage(collect(finished))
    assert len(tree.evaluations) == len({cell.evaluate.key for cell in finished.cells})
    for cell in finished.cells:
        model = cell.trained or cell.evaluate.inputs["model"]
        assert tree.lines[model.key] == tree.lines[cell.evaluate.key]


def test_its_words_count_what_was_made_and_what_is_shown_more_than_once(tmp_path):
    grid = {"grid": {"distill.lr": [1e-3, 3e-4]}}
    words = Lineage(collect(bench(tmp_path, ablations={"one": grid, "two": grid}).plan())).alt()
    assert words.startswith("2 models, 2 fine-tunings, 2 distillations, 6 evaluations.")
    assert words.endswith("6 evaluations in more than one row of the tables.")


def test_a_study_too_large_for_a_picture_has_none(tmp_path):
    rates = [1e-3 + number * 1e-6 for number in range(90)]
    plan = bench(tmp_path, ablations={"one": {"grid": {"distill.lr": rates}}}).plan()
    assert OVERVIEWS["lineage"](collect(plan)) is None


# what it cost


def test_by_hand_each_table_pays_for_all_that_it_shows(tmp_path):
    grid = {"grid": {"distill.lr": [1e-3, 3e-4]}}
    study = bench(tmp_path, ablations={"one": grid, "two": grid})
    study.commit(*study.plan().cells)
    seconds = seconds_of(collect(study.plan()))
    assert set(seconds.values()) == {90.0}
    whole = costs.lines(study.plan(), seconds)[-1]
    assert (whole.stages, whole.time) == ("10", "15 min")
    assert whole.by_hand == "30 min (20)"


def test_a_record_that_was_edited_tells_no_overview_when_where_or_how_long(tmp_path):
    study = bench(tmp_path, ablations=ONE_TABLE)
    study.commit(*study.plan().cells)
    plan = study.plan()
    stage = plan.cells[0].evaluate
    assert provenance(plan, stage)["seconds"] == 90.0
    record = plan.store.folder(stage) / "stage.json"
    record.write_text(record.read_text().replace("90.0", "9.0"))
    assert provenance(plan, stage) == {}
    assert stage.key not in seconds_of(collect(plan))
    assert len(timeline.bars_of(collect(plan))) == len(plan.work) - 1


def test_nothing_done_has_cost_nothing(tmp_path):
    assert costs.costs(collect(bench(tmp_path).plan())) is None
    assert timeline.timeline(collect(bench(tmp_path).plan())) is None


@pytest.mark.slow
def test_every_overview_is_on_both_pages(tmp_path):
    study = bench(tmp_path, ablations=ONE_TABLE)
    study.commit(*study.plan().cells)
    folder = write_report(study.plan())
    page, text = ((folder / name).read_text() for name in ("report.html", "report.md"))
    assert all(name in text for name in ("figures/stages.png", "figures/timeline.png", "Device time"))
    assert "<caption>Cost</caption>" in page
    assert len(re.findall(r'<svg [^>]*aria-label="[^"]*evaluations', page)) == 1
    assert re.search(r'aria-label="\d+ stages took', page)
