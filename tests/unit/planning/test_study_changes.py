"""What a run says of the study in which it differs from the last one."""

import json

from support.paths import ROOT

from ablate.example import assets
from ablate.planning.project import open_study
from ablate.planning.study_changes import LastRun, changes
from ablate.study.schema import Study


def test_the_embedded_files_of_another_installation_are_no_change(tmp_path):
    now = open_study(ROOT / "studies" / "tiny.yaml", tmp_path).study
    text = json.dumps(now.model_dump(mode="json"))
    before = Study.model_validate(json.loads(text.replace(str(assets()), "/old/ablate/world/assets")))
    assert before != now
    assert changes(LastRun(before, ()), now, ()) is None


def test_of_a_long_path_its_end_is_told(tmp_path):
    now = open_study(ROOT / "studies" / "tiny.yaml", tmp_path).study
    before = now.model_copy(update={"published": f"/{'far/' * 20}scores.yaml"})
    text = changes(LastRun(before, ()), now, ())
    assert text.startswith("since the last run, the study has changed: published: ...")
    assert text.endswith("far/scores.yaml -> none")
