"""docs/methods.md names every method and loss there is, and what it says of a study file is right."""

import re

import pytest
import yaml
from support.paths import ROOT, STUDIES

from ablate.losses import LOSSES
from ablate.study.distillation_methods import PRESETS
from ablate.study.load import load
from ablate.study.overlays import laid_over

TEXT = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_a_snippet_laid_over_a_study_is_a_valid_study(tmp_path, snippet):
    study = yaml.safe_load((STUDIES / "tiny_on_policy.yaml").read_text())
    study["distill"] = {}
    study["ablations"] = {"rates": {"grid": {"distill.lr": [1e-3, 1e-4]}}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(laid_over(study, yaml.safe_load(snippet))))
    load(path)


def test_every_method_has_a_section_and_a_snippet():
    sections = set(re.findall(r"^## (\w+)$", TEXT, re.MULTILINE))
    assert set(PRESETS) <= sections
    assert {f"method: {name}" for name in PRESETS} <= set(re.findall(r"method: \w+", " ".join(SNIPPETS)))


def test_every_loss_is_in_the_table_or_has_a_section():
    assert [name for name in LOSSES if f"`{name}`" not in TEXT] == []


def test_every_link_within_the_page_leads_to_a_title():
    titles = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    }
    assert set(re.findall(r"\(#([^)]*)\)", TEXT)) <= titles
