"""Plans of a study of two small models that share a tokenizer's vocabulary, before and after they are there."""

from pathlib import Path

import yaml

from ablate.planning.builder import make_plan
from ablate.planning.plan import Plan
from ablate.store.hub_lock import Pins
from ablate.store.store import Store
from ablate.study.cells import rows
from ablate.study.load import load
from support.planned import commit
from support.stub_models import stub_model

RATIOS = {"ratio": {"grid": {"distill.kd_ratio": [0.25, 0.5]}}}


def plan_of(folder: Path, *overrides: str, ablations=None, cap=None, widths=(32, 16)) -> Plan:
    """-> the plan of a study in a folder; `widths` of its teacher and its student."""
    for name, width in zip(("teacher", "student"), widths, strict=True):
        config = {"hidden_size": width, "vocab_size": 100, "name": name, "final_logit_softcapping": cap}
        stub_model(folder / name, width * 1000, **config)
    (folder / "rows.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n')
    study = {
        "name": "s",
        "data": {"source": "rows.jsonl"},
        "pairs": {"p": {"teacher": {"model": "./teacher"}, "student": {"model": "./student"}}},
        "evaluate": {"tasks": ["hellaswag"]},
        "ablations": ablations or RATIOS,
    }
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    study = load(path, overrides)
    return make_plan(study, rows(study), Pins({}, {}, ()), Store(folder))


def prepared(folder: Path, *overrides: str, loss_tokens: int = 1000, num_rows: int = 100, **more) -> Plan:
    """-> the plan once models and rows are there."""
    plan = plan_of(folder, *overrides, **more)
    train = {"rows": num_rows, "tokens": 2 * loss_tokens, "loss_tokens": loss_tokens, "without_loss": 0}
    for stage in plan.stages:
        if stage.kind == "fetch":
            commit(plan.store, stage, manifest={"path": getattr(stage.settings, "path", None)})
        if stage.kind == "rows":
            commit(plan.store, stage, "c" * 64, summary={"train": train, "holdout": train | {"loss_tokens": 0}})
    return plan_of(folder, *overrides, **more)
