"""Why a number is what it is: all that is behind a cell, and the reason why two stages are not one."""

from dataclasses import replace

import pytest
from support.golden import distilled
from support.report_study import bench

from ablate.cli.diff_view import differences
from ablate.cli.explain_view import lineage
from ablate.core.errors import AblateError


@pytest.fixture
def on_two_devices(tmp_path):
    """All but the last learning rate, whose training was done on another device."""
    study = bench(tmp_path)
    *others, last = distilled(study)
    study.commit(*others)
    replace(study, device="a card").commit_training(last)
    return study


def test_a_cells_lineage_has_every_stage_behind_it_each_after_what_it_needs(on_two_devices):
    plan, cell = on_two_devices.plan(), distilled(on_two_devices)[0]
    lines = list(lineage(plan, cell))
    assert lines[:2] == [
        "learning_rate/lr=0.001@0: KD, lr=0.001",
        "2 of 5 stages done, in 3 min of work",
    ]
    heads = [line.split()[0] for line in lines if line.startswith("\n")]
    assert heads == [stage.folder for stage in dict.fromkeys(cell.evaluate.walk())]
    assert heads[-1] == cell.evaluate.folder
    for start in ("  name = kd", "  needs adapter_0: ", "  made: seconds = 90.0", "  made: versions.torch = 2.13.0"):
        assert any(line.startswith(start) for line in lines)


def test_two_evaluations_differ_in_what_their_models_were_trained_with(on_two_devices):
    one, other = distilled(on_two_devices)[:2]
    assert list(differences(on_two_devices.store, one.evaluate.key, other.evaluate.folder)) == [
        "adapter_0: settings.recipe: finetuned baseline 0.001 0.5 forward_kl llama"
        " -> finetuned baseline 0.0003 0.5 forward_kl llama"
    ]


def test_what_is_in_no_key_is_told_as_such(on_two_devices):
    one, *_, other = (cell.trained for cell in distilled(on_two_devices))
    *settings, device = differences(on_two_devices.store, one.key[:8], other.key[:8])
    assert [line.split(":")[0] for line in settings] == ["settings.recipe"]
    assert device == "in no key: device: a CPU -> a card"


def test_a_stage_differs_in_nothing_from_itself_and_an_unknown_key_is_told(on_two_devices):
    key = distilled(on_two_devices)[0].trained.key
    assert list(differences(on_two_devices.store, key, key)) == []
    with pytest.raises(AblateError, match=r"no stage under .* has the key 'abc'"):
        list(differences(on_two_devices.store, key, "abc"))
    with pytest.raises(AblateError, match=r"several keys begin: .*distill-"):
        list(differences(on_two_devices.store, key, ""))
