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


def distillation(folder, **ablation):
    """-> the lines of the table for the distillation alone."""
    study = bench(folder, ablations={"one": ablation})
    (table,) = recipes(collect(study.plan()))
    return {name: values[-1] for name, values in table.lines if values[-1]}


def test_who_writes_the_answers_stands_in_the_table_where_a_row_says_it(tmp_path):
    plain = distillation(tmp_path / "plain", grid={"distill.lr": [1e-3]})
    assert not any(name.startswith(("sampling", "policy_gradient", "replay", "method", "answers")) for name in plain)
    own = distillation(tmp_path / "own", grid={"distill.answers": ["dataset", "student"]})
    sampling = ("temperature", "top_p", "top_k", "max_new_tokens", "num_answers")
    added = {"answers written by", "share of rows that the student writes", *(f"sampling.{name}" for name in sampling)}
    assert own.keys() - plain.keys() == added
    assert own["answers written by"] == "varied: dataset / student"
    assert own["sampling.max_new_tokens"] == "256"


def test_a_papers_method_stands_in_the_table_with_what_it_fills_in(tmp_path):
    shown = distillation(tmp_path, grid={"distill.method": ["gkd", "minillm"]})
    assert shown["method"] == "varied: gkd / minillm"
    assert shown["loss"] == "varied: jsd (beta: 0.5) / reverse_kl"
    assert shown["objective"] == "varied: divergence / policy_gradient"
    assert (shown["sampling.mix"], shown["policy_gradient.clip"]) == ("0.2", "2")
    assert "sampling.mix" not in distillation(tmp_path / "opd", set={"distill.method": "opd"})


def test_rows_by_who_writes_the_answers_and_by_method_are_called_by_it(tmp_path):
    def labels(name, **grid):
        study = bench(tmp_path / name, ablations={"one": {"grid": grid, "references": []}})
        return [row.row.label for row in collect(study.plan()).ablations[0].rows]

    writers = {"distill.answers": ["teacher", "student"], "distill.loss": ["forward_kl", "jsd"]}
    assert labels("writers", **writers)[0] == "KD, answers=teacher, loss=forward_kl"
    assert labels("methods", **{"distill.method": ["gkd", "opd"]}) == ["KD, method=gkd", "KD, method=opd"]
    temperatures = {"distill.sampling.temperature": [0.5], "distill.answers": ["student"]}
    assert labels("sampled", **temperatures) == ["KD, sampling.temperature=0.5, answers=student"]
