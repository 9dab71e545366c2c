import hashlib
import json
from pathlib import Path

import pytest
from support import tiny_models
from support.at_hub import fetched
from support.stub_models import stub_model

from ablate.core.errors import AblateError, StageError
from ablate.stages import inputs
from ablate.stages.fetch import Fetch, FetchSettings, local_digest

LLAMA = "meta-llama/Llama-3.2-1B-Instruct"


@pytest.fixture
def repository(tmp_path):
    """Makes a repository on a hub of the test's own: `repository("models/org/name", {"config.json": "{}"})`."""

    def make(name: str, files: dict[str, str | bytes]) -> Path:
        for file, content in files.items():
            path = tmp_path / "root" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path / "root"

    return make


def test_a_model_comes_as_weights_and_tokenizer_with_a_digest_of_each(plain_hub, tmp_path):
    manifest = fetched(plain_hub, tmp_path, repo=LLAMA)
    folder = Path(manifest["path"])
    assert folder.name == manifest["revision"]
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= manifest["files"].keys()
    assert "README.md" not in manifest["files"]
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        assert entry == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert json.loads((tmp_path / "progress.json").read_text())["unit"] == "bytes"


def test_a_gated_model_without_a_token_says_where_to_ask(serve_hub, tmp_path):
    hub = serve_hub("--gated", "meta-llama")
    failed = fetched(hub, tmp_path, repo=LLAMA)
    assert failed["failure"] == "denied"
    assert f"{LLAMA} is gated, and a visitor without a token has no access" in failed["message"]
    assert f"{hub.url}/{LLAMA}" in failed["message"]
    assert "HF_TOKEN" in failed["message"]


def test_a_token_opens_what_it_may_and_is_written_nowhere(serve_hub, tmp_path):
    hub = serve_hub("--gated", "meta-llama")
    canary = {"HF_TOKEN": "canary-token"}
    failed = fetched(hub, tmp_path / "wrong", repo=LLAMA, env=canary)
    assert failed["failure"] == "denied"
    assert "the token in use has no access" in failed["message"]
    assert fetched(hub, tmp_path / "right", repo=LLAMA, env={"HF_TOKEN": "good-token"})["files"]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 10
    assert not [
        path for path in written if any(token in path.read_bytes() for token in (b"canary-token", b"good-token"))
    ]


def test_downloads_that_break_off_are_gone_on_with(serve_hub, tmp_path):
    manifest = fetched(serve_hub("--fail", "3"), tmp_path, repo="meta-llama/Llama-3.1-8B-Instruct")
    assert Fetch().is_present(tmp_path)
    assert sum(name.endswith(".safetensors") for name in manifest["files"]) == 2


def test_a_cached_file_that_is_not_what_the_hub_said_is_fetched_again(serve_hub, tmp_path):
    hub = serve_hub()
    first = fetched(hub, tmp_path / "first", repo=LLAMA)
    weights = Path(first["path"]) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    offline = fetched(hub, tmp_path / "offline", repo=LLAMA, revision=first["revision"], env={"HF_HUB_OFFLINE": "1"})
    assert offline["failure"] == "missing"
    assert fetched(hub, tmp_path / "again", repo=LLAMA) == first


def test_a_mistake_of_our_own_is_not_taken_for_the_network(plain_hub, tmp_path):
    wrong = "import huggingface_hub; huggingface_hub.HfApi.list_repo_tree = None"
    failed = fetched(plain_hub, tmp_path, repo=LLAMA, before=wrong)
    assert failed["failure"] == "error"
    assert "TypeError" in failed["message"]


def test_a_hub_that_breaks_off_every_download_is_a_passing_failure(serve_hub, tmp_path):
    quick = "from ablate.store import hub_download; hub_download.WAITS_S = ()"
    failed = fetched(serve_hub("--fail", "1"), tmp_path, repo=LLAMA, before=quick)
    assert failed["failure"] == "network"
    assert LLAMA in failed["message"]


def test_an_unknown_repository_is_not_tried_again(plain_hub, tmp_path):
    failed = fetched(plain_hub, tmp_path, repo="meta-llama/Llama-3.2-1B-Instrukt", revision="0" * 40)
    assert failed["failure"] == "missing"
    assert "check the spelling" in failed["message"]


@pytest.mark.parametrize("revision", [None, "v9"])
def test_what_could_not_be_pinned_never_becomes_a_result(plain_hub, tmp_path, revision):
    failed = fetched(plain_hub, tmp_path, repo=LLAMA, revision=revision)
    assert failed["failure"] == ("network" if revision is None else "missing")
    assert ("start the same command again" if revision is None else "has no revision 'v9'") in failed["message"]
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """The files of a model that can be loaded as far as they tell."""
    folder = stub_model(tmp_path_factory.mktemp("whole"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


ADAPTER = {"adapter_config.json": '{"peft_type": "LORA", "base_model_name_or_path": "some/base"}'}
SHARDS = json.dumps({"weight_map": {"w": "model-00001-of-00002.safetensors", "v": "model-00002-of-00002.safetensors"}})
UNLOADABLE = {
    "pickles": ({"pytorch_model.bin": "boom"}, "convert it to safetensors"),
    "a shard missing": ({"model.safetensors.index.json": SHARDS, "model-00001-of-00002.safetensors": "x"}, "00002-of"),
    "quantised": ({"config.json": '{"model_type": "llama", "quantization_config": {"quant_method": "awq"}}'}, "(awq)"),
    "an encoder-decoder": ({"config.json": '{"model_type": "t5", "is_encoder_decoder": true}'}, "encoder-decoder"),
    "code": ({"config.json": '{"model_type": "x", "auto_map": {"AutoModelForCausalLM": "a.B"}}'}, "trust_remote_code"),
}


@pytest.mark.parametrize("kind", UNLOADABLE)
def test_what_cannot_be_loaded_is_refused_before_a_byte_of_its_weights_is_fetched(
    kind, serve_hub, tmp_path, repository, whole
):
    files, why = UNLOADABLE[kind]
    kept = whole if "config.json" in files else {n: c for n, c in whole.items() if n != "model.safetensors"}
    hub = serve_hub("--root", str(repository("models/some/model", {**kept, **files})))
    failed = fetched(hub, tmp_path / "stage", repo="some/model")
    assert failed["failure"] == "missing"
    assert why in failed["message"]
    assert not [*hub.home.rglob("*.bin"), *hub.home.rglob("*.safetensors")]


def test_weights_that_arrive_torn_from_their_owner_are_refused(serve_hub, tmp_path, repository, whole):
    hub = serve_hub("--root", str(repository("models/some/torn", whole | {"model.safetensors": b"x" * 99})))
    failed = fetched(hub, tmp_path / "stage", repo="some/torn")
    assert failed["failure"] == "missing"
    assert "model.safetensors cannot be read" in failed["message"]


def test_an_adapter_alone_says_which_base_it_wants_and_one_beside_weights_is_left_there(
    serve_hub, tmp_path, repository, whole
):
    weights = {"adapter_model.safetensors": whole["model.safetensors"]}
    root = repository("models/some/adapter", ADAPTER | weights)
    repository("models/some/both", whole | ADAPTER | weights)
    hub = serve_hub("--root", str(root))
    failed = fetched(hub, tmp_path / "adapter", repo="some/adapter")
    assert failed["failure"] == "missing"
    assert "it is an adapter, to be merged on another model: say which, such as `base: some/base`" in failed["message"]
    manifest = fetched(hub, tmp_path / "both", repo="some/both")
    assert "adapter_model.safetensors" not in manifest["files"]


def test_a_models_python_is_fetched_only_where_it_is_trusted(serve_hub, tmp_path, repository, whole):
    files = whole | {"modeling.py": "boom", "original/params.json": "{}"}
    hub = serve_hub("--root", str(repository("models/some/coded", files)))
    plain = fetched(hub, tmp_path / "plain", repo="some/coded")
    trusted = fetched(hub, tmp_path / "trusted", repo="some/coded", trust_remote_code=True)
    assert sorted(plain["files"]) == sorted(whole)
    assert sorted(trusted["files"]) == sorted([*whole, "modeling.py"])


README = """---
configs:
- config_name: small
  data_files: [{split: train, path: small/train-*}, {split: test, path: [small/a.jsonl, small/b.jsonl]}]
- config_name: large
  default: true
  data_files: large/*.jsonl
---
A data set.
"""
DATA = {
    "README.md": README, "script.py": "boom", "small/train-0.jsonl": "{}", "small/a.jsonl": "{}", "small/b.jsonl": "{}",
    "large/all.jsonl": "{}", "other/more.jsonl": "{}",
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ("small", ["README.md", "small/a.jsonl", "small/b.jsonl", "small/train-0.jsonl"]),
        (None, ["README.md", "large/all.jsonl"]),
        ("unsaid", ["README.md", *sorted(name for name in DATA if name.endswith(".jsonl"))]),
    ],
)
def test_of_a_data_set_only_the_files_of_the_config_are_fetched(serve_hub, tmp_path, repository, config, wanted):
    hub = serve_hub("--root", str(repository("datasets/some/data", DATA)))
    manifest = fetched(hub, tmp_path / "stage", repo="some/data", repo_type="dataset", config=config)
    assert sorted(manifest["files"]) == wanted


def test_a_data_set_that_is_only_a_script_is_refused(serve_hub, tmp_path, repository):
    hub = serve_hub("--root", str(repository("datasets/some/script", {"script.py": "boom", "README.md": "Run it."})))
    failed = fetched(hub, tmp_path / "stage", repo="some/script", repo_type="tasks")
    assert failed["failure"] == "missing"
    assert "only a script, which is not run" in failed["message"]


def test_a_full_disk_is_told_with_the_bytes_needed(serve_hub, tmp_path):
    full = "import shutil; shutil.disk_usage = lambda path: shutil._ntuple_diskusage(10, 10, 1000)"
    hub = serve_hub()
    failed = fetched(hub, tmp_path / "stage", repo=LLAMA, before=full)
    assert failed["failure"] == "nospace"
    assert "bytes more" in failed["message"]
    assert "1,000 free" in failed["message"]
    assert not list(hub.home.rglob("*.safetensors"))


def test_a_cached_file_that_is_gone_or_cut_is_missed_and_fetched_anew(serve_hub, tmp_path):
    hub = serve_hub()
    manifest = fetched(hub, tmp_path, repo=LLAMA)
    weights = (Path(manifest["path"]) / "model.safetensors").resolve()
    weights.write_bytes(weights.read_bytes()[:100])
    assert not Fetch().is_present(tmp_path)
    assert fetched(hub, tmp_path, repo=LLAMA) == manifest
    weights.unlink()
    assert not Fetch().is_present(tmp_path)
    assert fetched(hub, tmp_path, repo=LLAMA) == manifest
    assert Fetch().is_present(tmp_path)


def test_offline_the_cache_is_enough_once_it_is_there(serve_hub, tmp_path):
    hub = serve_hub()
    revision = fetched(hub, tmp_path / "first", repo=LLAMA)["revision"]
    hub.stop()
    offline = {"HF_HUB_OFFLINE": "1"}
    again = fetched(hub, tmp_path / "again", repo=LLAMA, revision=revision, env=offline)
    assert "model.safetensors" in again["files"]
    failed = fetched(hub, tmp_path / "other", repo="Qwen/Qwen2-0.5B-Instruct", revision=revision, env=offline)
    assert failed["failure"] == "missing"
    assert "HF_HUB_OFFLINE" in failed["message"]


def test_offline_a_part_of_a_data_set_is_not_taken_for_the_whole(serve_hub, tmp_path):
    hub = serve_hub()
    first = fetched(hub, tmp_path / "first", repo="Rowan/hellaswag", repo_type="tasks")
    (Path(first["path"]) / "data" / "train-00000-of-00001.parquet").unlink()
    again = {"repo": "Rowan/hellaswag", "repo_type": "tasks", "revision": first["revision"]}
    failed = fetched(hub, tmp_path / "again", env={"HF_HUB_OFFLINE": "1"}, **again)
    assert failed["failure"] == "missing"
    assert "is not whole on this machine" in failed["message"]


# from this disk


def _local(path: Path, folder: Path, **settings):
    given = {"source": "local", "repo_type": "dataset", "path": str(path), "sha256": local_digest(path)} | settings
    job = tiny_models.job(folder, FetchSettings(**given))
    Fetch().run(job)
    return json.loads((folder / "out" / "manifest.json").read_text())


def test_a_local_file_is_named_by_its_content(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a"}\n')
    manifest = _local(rows, tmp_path / "stage")
    assert manifest["path"] == str(rows)
    assert (
        manifest["sha256"] == hashlib.sha256(rows.read_bytes()).hexdigest() == manifest["files"]["rows.jsonl"]["sha256"]
    )
    assert Fetch().is_present(tmp_path / "stage")


def test_a_folder_is_named_by_what_people_put_there(tmp_path):
    folder = tmp_path / "tasks"
    (folder / "data").mkdir(parents=True)
    (folder / "mine.yaml").write_text("task: mine\n")
    (folder / "data" / "rows.jsonl").write_text("{}\n")
    before = local_digest(folder)
    for hidden in (".git/index", "__pycache__/mine.pyc"):
        (folder / hidden).parent.mkdir()
        (folder / hidden).write_text("noise")
    assert local_digest(folder) == before
    (folder / "data" / "rows.jsonl").rename(folder / "data" / "lines.jsonl")
    assert local_digest(folder) != before


def test_data_that_was_edited_after_the_plan_are_refused(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    planned = local_digest(rows)
    rows.write_text("[]\n")
    with pytest.raises(StageError, match="changed after the study was planned") as caught:
        _local(rows, tmp_path / "stage", sha256=planned)
    assert caught.value.failure == "mismatch"


@pytest.mark.parametrize("edit", ["changed", "added", "removed"])
def test_a_local_folder_that_was_edited_during_a_run_is_not_used_under_its_old_key(tmp_path, edit):
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "a.jsonl").write_text("{}\n")
    (folder / "b.jsonl").write_text("{}\n")
    _local(folder, tmp_path / "stage")
    assert inputs.fetched(tmp_path / "stage").path == folder
    file = folder / ("c.jsonl" if edit == "added" else "b.jsonl")
    file.unlink() if edit == "removed" else file.write_text("[]\n")
    with pytest.raises(StageError, match=rf"{file} was changed .* the same command plans it anew") as caught:
        inputs.fetched(tmp_path / "stage")
    assert caught.value.failure == "missing_input"


def test_a_local_file_that_was_edited_during_a_run_is_named(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    _local(rows, tmp_path / "stage")
    assert inputs.fetched(tmp_path / "stage").path == rows
    rows.write_text("[]\n")
    with pytest.raises(StageError, match=f"^{rows} was changed"):
        inputs.fetched(tmp_path / "stage")


def test_a_local_model_needs_safetensors(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_text("boom")
    with pytest.raises(StageError, match="only as pytorch_model"):
        _local(folder, tmp_path / "stage", repo_type="model")


def test_nothing_at_a_path_is_told(tmp_path):
    with pytest.raises(AblateError, match="no such file or folder"):
        local_digest(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AblateError, match="no file in it"):
        local_digest(tmp_path / "empty")
