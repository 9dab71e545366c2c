"""Pictures as the page has them: nothing is cut off, letters are text, and words of a study are left as they are."""

import re

import pytest
from matplotlib.figure import Figure

from ablate.report import picture_files, plot_style

LONG = "leaderboard_musr_object_placements acc_norm, of all its subjects together (points)"
EDGE = 1 / 72
"""Inches: what is drawn of a letter may go beyond its advance by as much."""


def titled(*titles, width=4.5):
    figure, axes = plot_style.panels(len(titles), width, 2.0)
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
        plot_style.name_rows(ax, ["one row", "another row with a long name"])
    return figure


@pytest.mark.parametrize("titles", [["What the question asks"], [LONG], [LONG, LONG], ["x" * 90]])
def test_no_title_leaves_its_panel_however_a_metric_is_called(titles):
    with plot_style.applied():
        figure = titled(*titles)
        picture_files.lay_out(figure)
        width, height = figure.get_size_inches()
        box = figure.get_tightbbox()
        assert box.x0 >= -EDGE
        assert box.x1 <= width + EDGE
        assert box.y1 <= height + EDGE
        for ax, other in zip(figure.axes, figure.axes[1:], strict=False):
            left, right = (one.title.axes.get_title(loc="left") for one in (ax, other))
            assert "".join(left.split()) == "".join(right.split()) == "".join(LONG.split())
            assert ax.get_tightbbox().x1 <= other.get_window_extent().x0 + 1


def drawn(text, **look):
    with plot_style.applied():
        figure = Figure(figsize=(3, 2))
        ax = figure.subplots()
        ax.plot([0, 1], [0, 1], label=text, **look)
        ax.set_title(text)
        return picture_files.inline_svg(figure, "name", "in words")


@pytest.mark.parametrize(
    "text", ["#0072b2", 'id="x"', "url(#x)", 'd="M 1.234567 2"', "<b> & \N{SNOWMAN}", "a: b; c > d"]
)
def test_words_of_a_study_stand_in_a_picture_as_they_are(text):
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", drawn(text))
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert escaped in shown


def test_a_picture_of_the_page_takes_its_colours_and_its_font_from_the_page():
    svg = drawn("a row", color=plot_style.PALETTE[0])
    assert "stroke:var(--c0)" in svg
    assert not re.search(r"#[0-9a-f]{6}[;\"]", svg)
    assert "font-family" not in svg


def test_pictures_of_one_page_share_no_id():
    def ids(name):
        with plot_style.applied():
            figure, (ax,) = plot_style.panels(1, 3, 2)
            ax.plot([0, 1], [0, 1], marker="o")
            return set(re.findall(r'\bid="([^"]*)"', picture_files.inline_svg(figure, name, "in words")))

    assert ids("one")
    assert not ids("one") & ids("two")


def test_whatever_a_picture_refers_to_is_in_it():
    svg = drawn("a row", marker="o")
    known = set(re.findall(r'\bid="([^"]*)"', svg))
    assert {*re.findall(r"url\(#([^)]*)\)", svg), *re.findall(r'href="#([^"]*)"', svg)} <= known


def test_an_axis_of_shares_is_in_hundredths_without_decimals_that_say_nothing():
    with plot_style.applied():
        figure, (ax,) = plot_style.panels(1, 3, 2)
        ax.set_xlim(-0.1, 0.3)
        ax.set_xticks([-0.1, 0, 0.025, 0.3])
        plot_style.show_share(ax.xaxis)
        figure.draw_without_rendering()
        assert [one.get_text() for one in ax.get_xticklabels()] == ["\N{MINUS SIGN}10", "0", "2.5", "30"]
