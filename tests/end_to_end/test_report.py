"""The report: what a reader sees is true, whole and harmless, and it is made again only when something changed."""

import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.golden import distilled, golden, half_done
from support.paths import TESTS
from support.report_study import ONE_TABLE, Bench, bench, without_numbers

from ablate.report.exhibits.base import EXHIBITS
from ablate.report.exhibits.curves import debiased
from ablate.report.exhibits.finer_metrics import finer_metrics
from ablate.report.exhibits.loss_curves import curves_of
from ablate.report.exhibits.scores_table import scores_table
from ablate.report.formatting import decimals, plain, with_error
from ablate.report.markup import md
from ablate.report.plot_style import spread
from ablate.report.write import write_report
from ablate.results.collect import Metric, collect

EVIL = (
    "<script>alert(1)</script> <img src=x onerror=alert(1)> | $x^2$ `code` *b* [l](javascript:alert(1)) 🎉 "
    + "long " * 60
)


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    study = bench(tmp_path_factory.mktemp("finished"))
    study.commit(*study.plan().cells)
    write_report(study.plan())
    return study


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pair = {
        "label": EVIL,
        "teacher": {"model": "=cmd|<b>", "label": EVIL},
        "student": {"model": "meta/1B", "label": "$\\frac{1}{2}$"},
    }
    question = {"title": EVIL, "question": EVIL, "grid": {"distill.lr": [1e-3, 3e-4]}}
    study = bench(tmp_path_factory.mktemp("hostile"), title=EVIL, pairs={"llama": pair}, ablations={"one": question})
    cells = study.plan().cells
    study.commit(*cells[:-1])
    study.fail(cells[-1].evaluate, "error", f"{EVIL}\n</td></table></section>")
    return write_report(study.plan())


def report(study: Bench) -> Path:
    return study.store.report_folder(study.study.name)


def markdown(study: Bench) -> str:
    results = collect(study.plan())
    return "\n".join(scores_table(results, ablation).markdown for ablation in results.ablations)


def test_a_table_has_the_tutorials_shape(finished):
    golden("finished.md", (report(finished) / "tables" / "learning_rate.md").read_text())


def test_failed_diverged_and_waiting_cells_say_so_in_their_rows(tmp_path):
    golden("half_done.md", markdown(half_done(tmp_path)))


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Of six learning rates one is sound; the others are NaN, failed, diverged, missing and made another way."""
    rates = {"title": "Trouble", "grid": {"distill.lr": [1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5]}}
    study = bench(tmp_path_factory.mktemp("troubled"), ablations={"rates": rates})
    no_number, failed, diverged, _, unlike, sound = distilled(study, "rates")
    study.commit_training(no_number)
    study.commit_evaluation(no_number, edit=without_numbers)
    study.commit_training(failed)
    study.fail(failed.evaluate, "oom", "CUDA out of memory")
    study.diverge(diverged)
    study.commit_training(unlike)
    study.commit_evaluation(unlike, batch_size=8)
    study.commit(sound, *(cell for cell in study.plan().cells if cell.row.model != "distill"))
    return study


def test_every_kind_of_trouble_stands_in_the_table_beside_what_is_sound(troubled):
    golden("troubled.md", markdown(troubled))


def test_no_row_in_trouble_may_be_the_best(troubled):
    results = collect(troubled.plan())
    piece = EXHIBITS["table-best"](results, results.ablations[0])
    golden("troubled_best.md", piece.markdown)
    golden("troubled_differences.md", EXHIBITS["table-detail"](results, results.ablations[0]).markdown)


def test_seeds_are_counted_and_their_spread_is_told(tmp_path):
    study = bench(tmp_path, seeds=[0, 1, 2])
    cells = study.plan().cells
    missing = distilled(study)[-1]
    study.commit(*(cell for cell in cells if cell.name != missing.name))
    golden("seeds.md", markdown(study))


def test_published_scores_stand_beside_ours(tmp_path):
    path = tmp_path / "published.yaml"
    path.write_text("source: a paper\ncolumns: [hellaswag/acc]\nllama: {student/baseline: [0.4517]}\n")
    study = bench(tmp_path, published=str(path))
    study.commit(*study.plan().cells)
    line = next(line for line in markdown(study).splitlines() if "| Baseline student" in line)
    assert line.count("[0.4517") == 1


@pytest.mark.parametrize(
    ("changes", "recipe"),
    [
        ({}, None),
        ({"data": {"source": "a/b", "limit": 64}, "evaluate": {"limit": 20}}, "data.limit = 64, evaluate.limit = 20"),
        ({"dtype": "float32"}, "dtype = float32"),
        ({"evaluate": {"dtype": "float16"}}, "dtype = float16"),
        ({"rehearsal": True}, "a rehearsal, evaluate.limit = 16"),
    ],
)
def test_published_scores_of_another_recipe_are_said_to_be(tmp_path, changes, recipe):
    path = tmp_path / "published.yaml"
    path.write_text("source: a paper\ncolumns: [hellaswag/acc]\nllama: {student/finetuned: [0.4595]}\n")
    study = bench(tmp_path, published=str(path), **changes)
    study.commit(*study.plan().cells)
    llama, qwen2 = (
        scores_table(collect(study.plan()), ablation).markdown for ablation in collect(study.plan()).ablations
    )
    recipes = re.findall(r"The published scores come from another recipe; here: (.*)\.", llama.replace("\\", ""))
    assert recipes == ([recipe] if recipe else [])
    assert "published scores" not in qwen2


def test_unlike_evaluations_are_said_to_be_not_comparable(tmp_path):
    study = bench(tmp_path)
    *rest, last = [cell for cell in study.plan().cells if cell.row.ablation == "learning_rate"]
    study.commit(*rest)
    study.commit_training(last)
    study.commit_evaluation(last, batch_size=8)
    line = [line for line in markdown(study).splitlines() if line.startswith("| KD, lr=1e-05")][1]
    assert line.count("not comparable: other batch size") == 4


def test_the_right_answers_probabilities_have_a_table_of_their_own(tmp_path):
    study = bench(tmp_path)
    for cell in study.plan().cells:
        study.commit_evaluation(cell, has_finer=True)
    results = collect(study.plan())
    ablation = results.ablations[0]
    assert {metric.name for metric in ablation.columns} == {"acc", "acc_norm"}
    text = finer_metrics(results, ablation).markdown
    assert "HellaSwag log" in text
    assert "acc" not in text
    (row,) = [row for row in ablation.rows if row.row.name.endswith("lr=1e-05")]
    metric = Metric("hellaswag", "log_probability")
    control = ablation.control_of(row.row)
    assert row.score(metric).value == pytest.approx(row.score(Metric("hellaswag", "acc")).value - 3)
    shift, same = (row.difference(control, Metric("hellaswag", name)) for name in ("log_probability", "acc"))
    assert shift._replace(num_differing=same.num_differing) == pytest.approx(same)


def test_without_the_right_answers_probabilities_there_is_no_table_of_them(finished):
    results = collect(finished.plan())
    assert finer_metrics(results, results.ablations[0]) is None


def test_nothing_is_bold_with_one_seed(finished):
    text = (report(finished) / "report.md").read_text()
    assert "**" not in text
    page = Page((report(finished) / "report.html").read_text())
    assert not page.all("b")
    assert not page.all("strong")


def test_a_rehearsal_is_marked_as_one(tmp_path):
    folder = write_report(bench(tmp_path, rehearsal=True).plan())
    assert "A rehearsal" in (folder / "report.html").read_text()
    assert "A rehearsal" in (folder / "report.md").read_text()


def test_what_was_shared_is_counted(finished):
    # 2 fine-tunings, 3 distillations and 7 evaluations; then 2, 1 and 5 of the other pair: nothing is shared
    assert (
        "20 stages of work: 4 fine-tunings, 4 distillations, 12 evaluations."
        in (report(finished) / "report.md").read_text()
    )


def test_a_report_without_any_result_is_whole(tmp_path):
    folder = write_report(bench(tmp_path).plan())
    text = (folder / "report.md").read_text()
    assert "0 of 12 cells done, 12 waiting" in text
    assert text.count("waiting: not started") == 2 * 12  # in the main table, and in the whole one


def test_the_page_opens_without_a_network(finished):
    text = (report(finished) / "report.html").read_text()
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag in ("link", "img", "iframe", "object", "embed")]
    assert page.all("script") == [{}]
    used = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("href", "src", "xlink:href")
    ]
    assert all(value and value.startswith("#") for value in used)
    assert "@import" not in text
    assert not re.findall(r"url\((?!#)", text)


def test_every_table_has_a_caption_and_scoped_headers(finished):
    page = Page((report(finished) / "report.html").read_text())
    assert len(page.all("table")) == len(page.all("caption")) > 0
    assert all(attributes.get("scope") for attributes in page.all("th"))


def test_every_picture_says_in_words_what_it_shows(finished):
    page = Page((report(finished) / "report.html").read_text())
    pictures = [svg for svg in page.all("svg") if svg.get("aria-hidden") != "true"]
    # all ablations; beside the answers (of the learning rate its trend too); differences and scores by metric, losses;
    # differences along the learning rate; cost and gain, stages, time
    assert len(pictures) == 1 + (2 + 1) + 2 * (4 + 4 + 3) + 4 + 3
    assert all(len(svg.get("aria-label") or "") > 40 for svg in pictures)
    text = (report(finished) / "report.md").read_text()
    alts = {name: alt for alt, name in re.findall(r"!\[(.*?)\]\(figures/(.*?)\.png\)", text)}
    assert len(alts) == 1 + 2 * 4 + 1 + 3
    for name in ("learning_rate-answer", "learning_rate-differences"):
        assert re.search(r"KD, lr=0.001 \+\S+ \(\S+ to \+\S+\), may be no different", alts[name])
    assert "HellaSwag acc: Baseline teacher 76.0 (68.8 to 83.2)" in alts["learning_rate-scores"]


def test_words_of_a_picture_can_be_found_and_copied_like_any_text_of_the_page(finished):
    text = (report(finished) / "report.html").read_text()
    assert {"baseline teacher", "KD, lr=0.001", "Against the control"} <= set(
        re.findall(r"<text[^>]*>(.*?)</text>", text)
    )


def test_no_two_elements_of_the_page_share_an_id(finished):
    page = Page((report(finished) / "report.html").read_text())
    ids = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []


def test_hostile_labels_are_text_in_the_page(hostile):
    page = Page((hostile / "report.html").read_text())
    assert page.all("script") == [{}]  # the page's own, the only one that its policy lets run
    assert not page.all("img")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert len(page.all("section")) == 3  # page 1, the ablation, how it was done


def test_hostile_labels_break_no_table_of_markdown(hostile):
    lines = (hostile / "report.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and ("KD, lr" in line or "Baseline" in line)]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {
        6,
        7,
        8,
        10,
    }  # of scores, of the best, of the main table, of every comparison
    assert not re.findall(r"(?<!\\)[$`]|<(?!/?a\b)", "\n".join(lines))


def test_hostile_labels_are_no_formula_in_a_spreadsheet(hostile):
    for path in (hostile / "results.csv", hostile / "tables" / "one.csv"):
        assert not re.findall(r"(^|,)[=+@]", path.read_text(), re.MULTILINE)


def test_an_unchanged_report_is_left_alone_and_needs_neither_pandas_nor_matplotlib(finished):
    before = {path: path.stat().st_mtime_ns for path in report(finished).rglob("*")}
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from support.report_study import bench\n"
        "from ablate.report.write import write_report; write_report(bench(Path(sys.argv[2])).plan())\n"
        "print([name for name in ('pandas', 'matplotlib', 'scipy', 'numpy', 'torch') if name in sys.modules])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(TESTS), str(finished.root)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert process.stdout.strip() == "[]"
    assert {path: path.stat().st_mtime_ns for path in report(finished).rglob("*")} == before


def test_a_report_is_the_same_bytes_when_made_again(finished):
    folder = report(finished)
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "report.html").unlink()
    write_report(finished.plan())
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_new_result_changes_the_report(tmp_path):
    study = bench(tmp_path, ablations=ONE_TABLE)
    first = (write_report(study.plan()) / "results.csv").read_text()
    study.commit(study.plan().cells[0])
    assert (write_report(study.plan()) / "results.csv").read_text() != first


def test_files_of_an_earlier_report_go_and_a_users_own_stay(tmp_path):
    study = bench(tmp_path)
    folder = write_report(study.plan())
    (folder / "mine.txt").write_text("a note")
    one = {name: study.study.ablations[name] for name in ("qwen2",)}
    smaller = Bench(tmp_path, study.study.model_copy(update={"ablations": one}))
    write_report(smaller.plan())
    assert {path.name for path in (folder / "tables").iterdir()} == {"qwen2.md", "qwen2.csv", "stages.csv"}
    assert (folder / "mine.txt").read_text() == "a note"


def test_a_diverged_curve_is_shown_as_far_as_it_got(tmp_path):
    study = half_done(tmp_path)
    results = collect(study.plan())
    piece = EXHIBITS["losses"](results, results.ablations[0])
    assert piece is not None
    assert "lr=0.001: diverged." in piece.markdown
    assert piece.files["figures/learning_rate-losses.png"].startswith(b"\x89PNG")


def test_each_pairs_fine_tuning_has_a_curve_of_its_own(tmp_path):
    study = bench(tmp_path, ablations={"pairs": {"grid": {"distill.pair": ["llama", "qwen2"]}}})
    study.commit(*study.plan().cells)
    results = collect(study.plan())
    curves = [curve for curve in curves_of(results.ablations[0], results.study.pairs) if curve.is_reference]
    assert [curve.label for curve in curves] == ["fine-tuning alone, llama", "fine-tuning alone, qwen2"]
    assert curves[0].style != curves[1].style
    piece = EXHIBITS["losses"](results, results.ablations[0])
    assert piece is not None
    assert all(f"fine-tuning alone, {pair}</" in piece.html for pair in ("llama", "qwen2"))


def test_a_nan_is_shown_as_nan_and_spoils_nothing_else(tmp_path):
    study = bench(tmp_path, seeds=[0, 1], ablations={"learning_rate": {"grid": {"distill.lr": [1e-3, 3e-4]}}})
    spoilt, baseline = distilled(study)[0], next(c for c in study.plan().cells if c.row.name == "student/baseline")

    def no_score(results):
        results["tasks"]["hellaswag"]["metrics"]["acc"] = {"value": "NaN", "stderr": "NaN"}

    def no_error(results):
        results["tasks"]["hellaswag"]["metrics"]["acc"]["stderr"] = "NaN"

    study.commit_training(spoilt)
    study.commit_evaluation(spoilt, edit=no_score)
    study.commit_evaluation(baseline, edit=no_error)
    study.commit(*study.plan().cells)
    text = (write_report(study.plan()) / "report.md").read_text()
    small, whole = [line for line in text.splitlines() if line.startswith("| KD, lr=0.001")][:2]
    assert small.count("NaN") == 1
    assert whole.count("NaN (sd NaN)") == 1
    assert "0.430 ± NaN" in text


@pytest.mark.parametrize("name", list(EXHIBITS))
def test_an_exhibit_stands_at_any_point_of_a_study(name, tmp_path):
    never, half = bench(tmp_path / "never"), half_done(tmp_path / "half")
    for study in (never, half):
        results = collect(study.plan())
        for ablation in results.ablations:
            piece = EXHIBITS[name](results, ablation)
            assert piece is None or all(path.startswith(("tables/", "figures/")) for path in piece.files)


def test_the_moving_average_has_no_bias_at_its_start():
    assert debiased([2.0, 2.0, 2.0], 0.9) == pytest.approx([2.0, 2.0, 2.0])
    assert debiased([1.0, 3.0], 0.5) == pytest.approx([1.0, (0.5 * 1 + 3) / 1.5])


def test_labels_at_line_ends_do_not_overlap():
    placed = spread([0.5, 0.51, 0.1, 0.505], 0.06, 0.0, 1.0)
    assert min(b - a for a, b in zip(sorted(placed), sorted(placed)[1:], strict=False)) > 0.0599
    assert sorted(range(4), key=placed.__getitem__) == [2, 0, 3, 1]
    assert spread([0.5, 0.5], 0.1, 0.0, 1.0) == pytest.approx([0.45, 0.55])
    assert spread([0.99, 0.98], 0.1, 0.0, 1.0) == pytest.approx([1.0, 0.9])


def test_digits_follow_the_standard_error():
    assert with_error(0.451234, 0.004912, decimals([0.004912, 0.0061])) == "0.4512 ± 0.0049"
    assert with_error(0.451234, 0.0491, decimals([0.0491])) == "0.451 ± 0.049"
    assert with_error(-0.01, 0.004, 4, is_signed=True) == "\N{MINUS SIGN}0.0100 ± 0.0040"
    assert with_error(float("nan"), 0.1, 3) == "NaN"


def test_markdown_shows_text_as_it_is():
    assert md("a|b_c $x$ <b> _i_") == r"a\|b_c \$x\$ &lt;b&gt; \_i\_"


def test_settings_read_as_one_would_write_them():
    assert [plain(v) for v in (1e-5, 0.0003, True, None, [1, 2], {"name": "jsd", "beta": 0.5})] == [
        "1e-05", "0.0003", "true", "none", "1, 2", "jsd (beta: 0.5)",
    ]  # fmt: skip
