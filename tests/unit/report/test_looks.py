"""What is known of a row can be seen: by anyone's eyes, in grey print too, and it is what the table says."""

import re
from itertools import combinations

import numpy as np
import pytest
from support.report_study import bench

from ablate.report import plot_style, verdict_looks
from ablate.report.exhibits.base import EXHIBITS
from ablate.report.markup import page_asset
from ablate.results.collect import collect
from ablate.results.effects import effects_of
from ablate.results.verdicts import Finding, findings_of

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear sRGB
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
EYES = {"all colours": np.eye(3), "no red": np.array(PROTANOPIA), "no green": np.array(DEUTERANOPIA)}
LEAST_DIFFERENCE = 10.0
"""In CIE76; about 2.3 is just noticeable side by side."""


def linear(color):
    srgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def lab(color, eyes):
    """CIELAB, D65, of a colour as these eyes see it."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = to_xyz @ np.clip(eyes @ linear(color), 0, 1) / np.array([0.9505, 1.0, 1.089])
    fx, fy, fz = (t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


def palettes():
    """The colours of print and light screens, and their twins of dark ones, as the page sets them."""
    style = page_asset("style.css")
    sets = re.findall(r"(?:--c\d: #\w{6}; ?){8}", style)
    assert len(sets) == 3
    light, dark, printed = ([f"#{color}" for color in re.findall(r"#(\w{6})", one)] for one in sets)
    assert light == printed == list(plot_style.PALETTE)
    return {"light": light, "dark": dark}


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("screen", ["light", "dark"])
def test_no_two_colours_of_a_palette_look_alike_to_anyone(screen, eyes):
    for one, other in combinations(palettes()[screen], 2):
        difference = np.linalg.norm(lab(one, EYES[eyes]) - lab(other, EYES[eyes]))
        assert difference > LEAST_DIFFERENCE, (one, other)


@pytest.mark.parametrize("eyes", EYES)
def test_every_colour_shows_on_its_paper(eyes):
    assert all(lab(color, EYES[eyes])[0] < 80 for color in palettes()["light"])
    assert all(lab(color, EYES[eyes])[0] > 45 for color in palettes()["dark"])


def test_marks_differ_in_shape_or_filling_so_that_grey_print_tells_them_apart():
    looks = verdict_looks.LOOKS
    greys = {one: (look["marker"], look["markerfacecolor"] == plot_style.PAPER) for one, look in looks.items()}
    assert len(set(greys.values())) == len(looks)


def finding(verdict, value):
    contrast = type("Contrast", (), {"value": value})()
    return type("Finding", (), {"verdict": verdict, "contrast": contrast, "is_ahead": value > 0})()


@pytest.mark.parametrize(
    ("verdict", "value", "expected"),
    [
        ("better", 0.1, "ahead"),
        ("suggestive", 0.1, "ahead"),
        ("worse", -0.1, "behind"),
        ("suggestive", -0.1, "behind"),
        ("equivalent", 0.0, "equivalent"),
        ("inconclusive", 0.1, "open"),
    ],
)
def test_a_mark_is_filled_where_the_interval_leaves_out_no_difference_whatever_the_seeds(verdict, value, expected):
    assert verdict_looks.standing(finding(verdict, value)) == expected


def test_what_cannot_be_compared_has_a_mark_of_its_own():
    assert verdict_looks.standing(None) == "alone"
    assert verdict_looks.standing(Finding(None, None, "not comparable")) == "alone"


# the figure beside an answer


def answer(study, number=0):
    results = collect(study.plan())
    return results, results.ablations[number], EXHIBITS["answer"](results, results.ablations[number])


@pytest.mark.parametrize(
    "table",
    [
        {"grid": {"distill.teacher": ["baseline", "finetuned"]}},
        {"grid": {"distill.lr": [1e-3, 3e-4, 1e-4]}},
        {"grid": {"distill.lr": [1e-3, 3e-4, 1e-4], "distill.kd_ratio": [0.25, 0.5]}},
    ],
)
def test_the_figure_beside_an_answer_tells_every_effect_and_row_by_the_primary_metric_alone(tmp_path, table):
    study = bench(tmp_path, ablations={"one": table}, report={"primary": "hellaswag/acc"})
    study.commit(*study.plan().cells)
    results, ablation, piece = answer(study)
    titles = re.findall(r"<title>(.*?)</title>", piece.html)
    compared = [one for one in effects_of(results, ablation) if one.metric == ablation.primary]
    compared += [one for one in findings_of(results, ablation).all if one.metric == ablation.primary]
    assert len(titles) == len(compared) > 0
    for one in compared:
        _, low, high = one.deciding
        value, low, high = (100 * number for number in (one.contrast.value, low, high))
        numbers = f"{value:+.1f} ({low:+.1f} to {high:+.1f})".replace("-", "\N{MINUS SIGN}")
        assert any(f"{numbers}, {verdict_looks.words(one)}" in title for title in titles)
    assert set(piece.files) == {"figures/one-answer.png", "figures/one-answer.svg"}
    assert "commonsense" not in piece.html.lower()


def test_before_anything_is_compared_there_is_no_such_figure(tmp_path):
    assert answer(bench(tmp_path))[2] is None
