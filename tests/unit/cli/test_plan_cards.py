"""`ablate plan --cards`: whether a study of a 70B teacher fits on cards that are not here."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from support import judged_cards as by_hand
from support.header_hub import SHA, header_hub
from support.header_models import header_model
from support.paths import STUDIES
from support.planned import commit, pins_of
from typer.testing import CliRunner

from ablate.cli.app import app
from ablate.cli.cards_view import cards_record, print_cards
from ablate.core.errors import AblateError
from ablate.planning.asked_cards import CardSet, asked_cards
from ablate.planning.builder import make_plan
from ablate.store.store import Store
from ablate.study.cells import rows
from ablate.study.load import load

TRAIN = {"rows": 1000, "tokens": 200_000, "loss_tokens": 100_000, "without_loss": 0}
GB = 10**9
LAYER = 855_654_400 * 2
"""Bytes, of the teacher's 80, of which two are on the card."""
MODELS = {"meta-llama/Llama-3.3-70B-Instruct": "70B", "meta-llama/Llama-3.1-8B-Instruct": "8B"}
NAMED = [("dataset", "tatsu-lab/alpaca"), ("dataset", "Rowan/hellaswag"), *(("model", name) for name in MODELS)]
STUDY = {
    "name": "s",
    "data": {"source": "tatsu-lab/alpaca", "max_length": by_hand.ROW},
    "pairs": {"p": dict(zip(("teacher", "student"), ({"model": name} for name in MODELS), strict=True))},
    "evaluate": {"tasks": ["hellaswag"]},
    "ablations": {"ratio": {"grid": {"distill.kd_ratio": [0.25, 0.5]}}},
}


def plan_in(folder, *overrides, is_fetched=True):
    """-> the plan of a study of a 70B teacher and an 8B student in bfloat16, with rows of 1,024 tokens at most."""
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    study = load(path, ["dtype=bfloat16", *overrides])
    lines, store = rows(study), Store(folder)
    pins = pins_of(lines)
    for stage in make_plan(study, lines, pins, store).stages if is_fetched else ():
        if stage.kind == "fetch" and not store.done(stage):
            repo = stage.settings.repo
            if repo in MODELS:
                header_model(folder / "models" / repo, by_hand.model(MODELS[repo]))
            commit(store, stage, manifest={"path": str(folder / "models" / repo), "files": {}})
        if stage.kind == "rows" and not store.done(stage):
            commit(store, stage, "c" * 64, summary={"train": TRAIN, "holdout": TRAIN | {"rows": 0, "loss_tokens": 0}})
    return make_plan(study, lines, pins, store)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("large")


def fits_of(plan, text):
    """-> by kind and model (their first words), the answers in the order of the cards."""
    by_stage = {}
    for fit in cards_record(plan, asked_cards([text]))["fits"]:
        kind, name = fit["label"].split()[:2]
        by_stage.setdefault(f"{kind} {name.split(',')[0].split('@')[0]}", []).append(fit)
    return by_stage


# as in tests/unit/planning/test_card_verdicts.py, where bytes are counted by hand: 24 GB | 40 GB | 80 GB | 141 GB
BESIDE = {
    "finetune p/teacher/finetuned": "0000 0000 0044 0222",
    "distill ratio/kd_ratio=0.25": "0000 1118 1144 1222",
    "evaluate p/teacher/baseline": "0008 0044 0222 0222",
    "finetune p/student/finetuned": "1111 1111 1111 1111",
    "evaluate p/student/baseline": "1111 1111 1111 1111",
}


def test_all_sixteen_are_answered_for_the_largest_stage_of_each_kind_and_model(folder):
    fits = fits_of(plan_in(folder, "distill.teacher_cache=none"), "1,2,4,8x24,40,80,141GB")
    for stage, expected in BESIDE.items():
        needed = [fit["needed_cards"] for fit in fits[stage]]
        assert " ".join("".join(map(str, needed[at : at + 4])) for at in range(0, 16, 4)) == expected, stage
        for fit in fits[stage]:
            assert fit["is_fit"] == (fit["needed_cards"] > 0) == (fit["needed_bytes"] <= 0.95 * fit["card_bytes"])
    assert fits.keys() == BESIDE.keys()


def test_a_teacher_asked_once_has_a_line_of_its_own_and_its_distillation_one_card(folder):
    fits = fits_of(plan_in(folder), "8x80GB")
    (cache,) = fits["teacher_cache p/teacher/finetuned"]
    assert cache["how"] == f"its layers on {cache['needed_cards']} cards"
    assert fits["distill ratio/kd_ratio=0.25"][0]["needed_cards"] == 1


def test_in_text_a_line_says_gb_cards_and_how_and_cards_that_come_to_the_same_share_one(folder, capsys):
    print_cards(plan_in(folder, "distill.teacher_cache=none"), asked_cards(["1,2,4,8x80GB"]))
    lines = capsys.readouterr().out.splitlines()
    text = [" ".join(line.split()) for line in lines]
    shards = "needs 4 cards: its weights in shards on 4 cards (FSDP2), with gradient checkpointing"
    (needed,) = [line for line in text if line.endswith(shards)]
    assert needed.startswith("4, 8 x 80 GB ")
    (one,) = [line for line in text if line.startswith("finetune p/student/finetuned@0")]
    assert "1, 2, 4, 8 x 80 GB" in one
    assert one.endswith("fits on one card")
    host = f"the teacher's layers in the machine's memory ({78 * LAYER / 1e9:.1f} GB there)"
    assert any(line.startswith("distill") and "1, 2 x 80 GB" in line and line.endswith(host) for line in text)
    assert any(
        "1 x 80 GB" in line and "does not fit" in line and "would fit: 4 such cards, or" in line for line in text
    )


@pytest.mark.parametrize(
    ("given", "stage", "cards", "words", "changed"),
    [
        ((), "finetune p/teacher/finetuned", "1x80GB", "quantize: nf4", ["pairs.p.teacher.quantize=nf4"]),
        ((), "evaluate p/teacher/baseline", "1x80GB", "quantize: nf4", ["pairs.p.teacher.quantize=nf4"]),
        (
            ("finetune.lora=null",),
            "finetune p/teacher/finetuned",
            "4x80GB",
            "lora instead of every weight",
            ["finetune.lora={}"],
        ),
        (
            ("data.max_length=16384",),
            "finetune p/teacher/finetuned",
            "4x80GB",
            "rows 1/4 as long (data.max_length)",
            ["data.max_length=4096"],
        ),
        (
            ("distill.teacher_cache=none",),
            "distill ratio/kd_ratio=0.25",
            "1x24GB",
            "quantize: nf4 of teacher and student",
            ["pairs.p.teacher.quantize=nf4", "pairs.p.student.quantize=nf4"],
        ),
    ],
)
def test_what_is_said_to_fit_instead_does(folder, given, stage, cards, words, changed):
    (refused,) = fits_of(plan_in(folder, *given), cards)[stage]
    assert not refused["is_fit"]
    (offered,) = [one for one in refused["instead"] if one == words or one.startswith(f"{words} (")]
    (done,) = fits_of(plan_in(folder, *given, *changed), cards)[stage]
    assert done["is_fit"]
    assert done["needed_bytes"] <= refused["needed_bytes"]
    if "max_length" not in words:
        assert f"({done['needed_bytes'] / 1e9:.1f} GB on " in offered


def test_more_cards_are_offered_where_they_do(folder):
    (refused,) = fits_of(plan_in(folder), "2x40GB")["evaluate p/teacher/baseline"]
    assert refused["instead"][0] == "4 such cards"
    (done,) = fits_of(plan_in(folder), "4x40GB")["evaluate p/teacher/baseline"]
    assert done["is_fit"]


def test_without_models_and_without_a_hub_it_says_what_is_not_known(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    plan = plan_in(tmp_path, is_fetched=False)
    print_cards(plan, asked_cards(["8x80GB"]))
    text = capsys.readouterr().out
    (line,) = [line for line in text.splitlines() if line.startswith("known once models are here (`ablate run` begins")]
    assert "finetune p/teacher/finetuned@0" in line
    assert "evaluate p/student/baseline" in line
    assert cards_record(plan, asked_cards(["8x80GB"]))["fits"] == []


def test_models_that_are_not_here_are_known_by_the_headers_of_their_files_at_the_hub(tmp_path):
    served = {}
    for name, shape in MODELS.items():
        served[name] = tmp_path / "hub" / shape
        header_model(served[name], by_hand.model(shape))
    plan_in(tmp_path, "distill.teacher_cache=none", is_fetched=False)
    with header_hub(served) as (address, sent):
        lines = [
            f"- {{type: {sort}, repo: {repo}, revision: main, sha: {SHA}, endpoint: '{address}'}}\n"
            for sort, repo in NAMED
        ]
        (tmp_path / "s.lock.yaml").write_text("".join(lines))
        words = ["--set", "dtype=bfloat16", "--set", "distill.teacher_cache=none", "--cards", "1,2,4,8x24,40,80,141GB"]
        env = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*"}
        command = [sys.executable, "-m", "ablate", "plan", "s.yaml", "--json", *words]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cards = json.loads(done.stdout)["cards"]
    for stage, expected in BESIDE.items():
        needed = [fit["needed_cards"] for fit in cards["fits"] if fit["label"].startswith(stage)]
        assert " ".join("".join(map(str, needed[at : at + 4])) for at in range(0, 16, 4)) == expected, stage
    assert cards["not_known"] == []
    assert "models that are not here are known by the headers of their files" in cards["notes"]
    assert any("rows are not here: they count as long as the study lets them be" in note for note in cards["notes"])
    assert sum(sent.values()) < 10**6
    assert not (tmp_path / "runs/stages").exists()


@pytest.mark.parametrize(
    ("texts", "sets"),
    [
        (["4x80GB"], [(4, 80 * GB)]),
        (["4 x 80 GB"], [(4, 80 * GB)]),
        (["8X80"], [(8, 80 * GB)]),
        (["1x24GB", "8x141G"], [(1, 24 * GB), (8, 141 * GB)]),
        (["1x24GB,8x141GB"], [(1, 24 * GB), (8, 141 * GB)]),
        (["1,2x24,40GB"], [(1, 24 * GB), (2, 24 * GB), (1, 40 * GB), (2, 40 * GB)]),
        (["4x80GB", "2,4x80GB"], [(4, 80 * GB), (2, 80 * GB)]),
        (["1x22.5GiB"], [(1, int(22.5 * 2**30))]),
    ],
)
def test_cards_are_asked_about_one_by_one_or_many_at_once(texts, sets):
    assert asked_cards(texts) == tuple(CardSet(*one) for one in sets)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("80GB", "one such card is 1x80GB"),
        ("4", "does not say how many and how large"),
        ("", "does not say how many and how large"),
        ("0x80GB", "'0' is no number of cards"),
        ("80x4TB", "'80' is no number of cards from 1 to 64"),
        ("4x4TB", "'4tb' is not the memory of a card"),
        ("4xH100", "'h100' is not the memory of a card"),
        ("4x0GB", "'0gb' is not the memory of a card"),
        ("-1x80GB", "'-1' is no number of cards"),
        ("1,2x24,4x80GB", "does not say how many and how large"),
        ("x", "'' is no number of cards"),
    ],
)
def test_cards_that_are_none_are_refused_with_what_is_possible(text, why):
    refused = CliRunner().invoke(app, ["plan", "studies/tiny.yaml", f"--cards={text}"])
    assert isinstance(refused.exception, AblateError)
    message = str(refused.exception)
    assert message.startswith(f"--cards {text}: ")
    assert why in message
    assert "such as 4x80GB; several as 1x24GB,8x141GB, or all of 1,2,4,8x24,40,80,141GB" in message


def test_the_command_prints_them_under_the_plan_and_in_its_json(tmp_path):
    command = ["plan", str(STUDIES / "tiny.yaml"), "--root", str(tmp_path), "--cards", "1x24GB"]
    text = CliRunner().invoke(app, command).stdout
    assert text.index("trainings and evaluations") < text.index("fits on one card")
    record = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert {fit["how"] for fit in record["cards"]["fits"] if fit["is_fit"]} == {""}
    assert len(record["cards"]["fits"]) > 3
    assert "cards" not in json.loads(CliRunner().invoke(app, [*command[:4], "--json"]).stdout)
