import json

import pytest
import yaml
from support.at_hub import pinned

from ablate.core.errors import AblateError
from ablate.core.hub import Repo
from ablate.store.hub_lock import pin

STUDENT = ["model", "Qwen/Qwen2-0.5B-Instruct", None]
QUESTIONS = ["dataset", "tau/commonsense_qa", None]
SHA = "0123456789abcdef0123456789abcdef01234567"


def _entry(endpoint, sha=SHA):
    return {"type": "model", "repo": STUDENT[1], "revision": "main", "sha": sha, "endpoint": endpoint}


def test_a_revision_is_asked_once_and_kept_in_a_file_that_people_can_read(plain_hub, tmp_path):
    lock = tmp_path / "study.lock.yaml"
    first = pinned(plain_hub, lock, STUDENT, QUESTIONS)
    assert lock.read_text().startswith("# The revisions that the study beside this file uses")
    assert yaml.safe_load(lock.read_text()) == [
        {"type": kind, "repo": name, "revision": "main", "sha": first["revisions"][name], "endpoint": plain_hub.url}
        for kind, name, _ in (QUESTIONS, STUDENT)
    ]
    again = pinned(plain_hub, lock, STUDENT, QUESTIONS)
    assert again["revisions"] == first["revisions"]
    assert not again["is_imported"]  # nothing was asked, so planning stays light


def test_what_is_locked_stays_though_the_repository_moves_on(plain_hub, tmp_path):
    lock = tmp_path / "study.lock.yaml"
    lock.write_text(yaml.safe_dump([_entry(plain_hub.url)]))
    assert pinned(plain_hub, lock, STUDENT)["revisions"] == {STUDENT[1]: SHA}


def test_what_another_hub_pinned_is_asked_anew_and_told(plain_hub, tmp_path):
    lock = tmp_path / "study.lock.yaml"
    lock.write_text(yaml.safe_dump([_entry("https://huggingface.co")]))
    pins = pinned(plain_hub, lock, STUDENT)
    assert pins["revisions"][STUDENT[1]] != SHA
    assert "https://huggingface.co" in pins["notes"][0]
    assert len(yaml.safe_load(lock.read_text())) == 2  # the other hub's entry is kept for its users


def test_a_second_hub_with_the_same_commit_is_asked_once_too(plain_hub, tmp_path):
    lock = tmp_path / "study.lock.yaml"
    sha = pinned(plain_hub, lock, STUDENT)["revisions"][STUDENT[1]]
    lock.write_text(yaml.safe_dump([_entry("https://mirror.org", sha)]))
    assert pinned(plain_hub, lock, STUDENT)["notes"]
    assert yaml.safe_load(lock.read_text()) == [_entry("https://mirror.org", sha), _entry(plain_hub.url, sha)][::-1]
    again = pinned(plain_hub, lock, STUDENT)
    assert again["revisions"] == {STUDENT[1]: sha}
    assert not again["notes"]
    assert not again["is_imported"]


def test_a_hub_on_this_machine_keeps_one_line_whatever_its_port(serve_hub, tmp_path):
    lock = tmp_path / "study.lock.yaml"
    others = [_entry("https://huggingface.co"), _entry("http://localhost"), _entry("http://10.0.0.1:80")]
    gone = [_entry("http://localhost:9"), _entry("http://127.0.0.1:9"), _entry("http://[::1]:9")]
    lock.write_text(yaml.safe_dump([*others, *gone]))
    for _ in range(2):
        hub = serve_hub()
        pinned(hub, lock, STUDENT, QUESTIONS)
        kept = [line["endpoint"] for line in yaml.safe_load(lock.read_text()) if line["repo"] == STUDENT[1]]
        assert sorted(kept) == sorted([*(line["endpoint"] for line in others), hub.url])
        hub.stop()


def test_a_password_of_a_hub_is_written_and_shown_nowhere(serve_hub, tmp_path):
    lock, hub = tmp_path / "study.lock.yaml", serve_hub()
    secret = {"HF_ENDPOINT": hub.url.replace("://", "://user:se@cret@"), "HF_TOKEN": "good-token"}
    assert pinned(hub, lock, STUDENT, **secret)["revisions"]
    assert yaml.safe_load(lock.read_text())[0]["endpoint"] == hub.url
    assert not pinned(hub, lock, STUDENT, **secret)["is_imported"]
    missing = pinned(hub, lock, ["model", "no", None], **secret)
    hub.stop()
    down = pinned(hub, lock, QUESTIONS, **secret)
    assert missing["problems"]
    assert down["problems"]
    assert "cret" not in f"{missing}{down}{lock.read_text()}"


def test_a_password_that_an_older_lock_holds_goes_with_the_next_line(plain_hub, tmp_path):
    lock = tmp_path / "study.lock.yaml"
    lock.write_text(yaml.safe_dump([_entry("https://user:secret@mirror.org")]))
    pins = pinned(plain_hub, lock, STUDENT)
    assert "for https://mirror.org, not for" in pins["notes"][0]
    assert "secret" not in lock.read_text()


def test_offline_an_entry_counts_wherever_it_came_from(plain_hub, tmp_path):
    lock = tmp_path / "study.lock.yaml"
    lock.write_text(yaml.safe_dump([_entry("https://huggingface.co")]))
    pins = pinned(plain_hub, lock, STUDENT, QUESTIONS, HF_HUB_OFFLINE="1")
    assert pins["revisions"] == {STUDENT[1]: SHA}
    assert "run once without" in pins["problems"][QUESTIONS[1]]


def test_one_repository_that_is_not_there_leaves_the_others_pinned(plain_hub, tmp_path):
    pins = pinned(plain_hub, tmp_path / "lock.yaml", ["model", "Qwen/Qwen3-0.5B", None], STUDENT, ["model", "no", None])
    assert list(pins["revisions"]) == [STUDENT[1]]
    assert "has no model Qwen/Qwen3-0.5B" in pins["problems"]["Qwen/Qwen3-0.5B"]
    assert "check the spelling" in pins["problems"]["Qwen/Qwen3-0.5B"]


def test_a_revision_that_is_not_there_is_named(plain_hub, tmp_path):
    pins = pinned(plain_hub, tmp_path / "lock.yaml", [*STUDENT[:2], "v9"])
    assert "has no revision 'v9'" in pins["problems"][STUDENT[1]]


def test_a_hub_that_is_down_is_told_within_seconds(serve_hub, tmp_path):
    hub = serve_hub()
    hub.stop()
    pins = pinned(hub, tmp_path / "lock.yaml", STUDENT, QUESTIONS)
    assert f"{hub.url} does not answer" in pins["problems"][STUDENT[1]]
    assert set(pins["problems"]) == {STUDENT[1], QUESTIONS[1]}


def test_a_lock_that_cannot_be_written_is_told_and_stops_nothing(plain_hub, tmp_path):
    pins = pinned(plain_hub, tmp_path / "missing" / "lock.yaml", STUDENT)
    assert pins["revisions"]
    assert "cannot be written" in pins["notes"][0]


def test_a_lock_that_cannot_be_read_is_never_overwritten(tmp_path):
    lock = tmp_path / "study.lock.yaml"
    lock.write_text("<<<<<<< HEAD\n- {type: model\n")
    with pytest.raises(AblateError, match="restore it, or delete it"):
        pin([Repo("model", "a/b")], lock)
    assert lock.read_text().startswith("<<<<<<<")


def test_a_commit_needs_no_pin(tmp_path):
    repo = Repo("model", "a/b", SHA)
    assert pin([repo], tmp_path / "lock.yaml").revisions == {repo: SHA}
    assert not (tmp_path / "lock.yaml").exists()


def test_nothing_is_asked_where_only_a_look_is_wanted(tmp_path):
    pins = pin([Repo("model", "a/b")], tmp_path / "lock.yaml", is_online=False)
    assert "not pinned yet" in pins.problems[Repo("model", "a/b")]


def test_an_adapters_base_is_pinned_with_it_and_both_are_locked(serve_hub, tmp_path):
    configs = {"org/adapter": "org/tuned", "org/tuned": "org/base", "org/local": "/home/somebody/base"}
    for name, base in configs.items():
        folder = tmp_path / "root/models" / name
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        (folder / "adapter_model.safetensors").write_bytes(b"x")
        (folder / "last-checkpoint").mkdir()
        (folder / "last-checkpoint/scaler.pt").write_bytes(b"x")
    folder = tmp_path / "root/models/org/base"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "adapter_config.json"):  # a stray one
        (folder / name).write_text("{}")
    hub, lock = serve_hub("--root", str(tmp_path / "root")), tmp_path / "lock.yaml"
    first = pinned(hub, lock, ["model", "org/adapter", None], ["model", "org/local", None])
    assert first["bases"] == {"org/adapter": "org/tuned", "org/tuned": "org/base"}
    assert set(first["revisions"]) == {"org/adapter", "org/tuned", "org/base", "org/local"}
    again = pinned(hub, lock, ["model", "org/adapter", None], ["model", "org/local", None])
    assert (again["bases"], again["revisions"]) == (first["bases"], first["revisions"])
    assert not again["is_imported"]
    assert not list(hub.home.rglob("*.safetensors"))
