"""The report's table of recipes: settings that came later stand in it where they are used."""

from support.report_study import ONE_TABLE, bench

from ablate.report.recipes import recipes
from ablate.results.collect import collect


def lines(folder, **train):
    study = bench(folder, train=train, ablations=dict(ONE_TABLE))
    (table,) = recipes(collect(study.plan()))
    return {name: dict(zip(table.columns, values, strict=True)) for name, values in table.lines}


def test_a_setting_that_came_later_stands_in_the_table_only_where_it_is_used(tmp_path):
    before = lines(tmp_path)
    assert "LoRA rank" in before
    assert not any("DoRA" in name or "rsLoRA" in name or "whole" in name for name in before)
    used = lines(tmp_path, lora={"use_dora": True, "modules_to_save": ["lm_head", "norm"]})
    assert used.keys() - before.keys() == {"LoRA weight-decomposed (DoRA)", "trained whole beside LoRA"}
    assert set(used["LoRA weight-decomposed (DoRA)"].values()) == {"true"}
    assert set(used["trained whole beside LoRA"].values()) == {"lm_head, norm"}


def test_where_one_row_uses_it_the_others_say_that_they_do_not(tmp_path):
    ablation = {"set": {"distill.pair": "qwen2"}, "grid": {"distill.lora.use_dora": [True, False]}}
    study = bench(tmp_path, ablations={"one": ablation})
    (table,) = recipes(collect(study.plan()))
    line = dict(table.lines)["LoRA weight-decomposed (DoRA)"]
    assert dict(zip(table.columns, line, strict=True))["Distillation"] == "varied: true / false"
