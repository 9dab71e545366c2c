"""A stage that works offline sends nothing: what is counted is what arrives at a server beside it."""

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.asking import ENDINGS, save_model, write_tasks
from support.toys import drive, ordered, toy

from ablate.core import disk
from ablate.core.errors import NetworkIsOff
from ablate.core.failures import ending_of
from ablate.core.local_files import local_digest
from ablate.execution.executors.base import offline
from ablate.execution.executors.launch import start_fresh
from ablate.machine import network
from ablate.stages.evaluate import EvaluateSettings
from ablate.stages.fetch import FetchSettings
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.catalog import lm_eval_version
from ablate.study.evaluation_settings import Evaluate as Recipe


class Counting:
    """A server on this machine that counts who comes, by TCP or with a datagram."""

    def __init__(self) -> None:
        self.arrived: list[object] = []
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self.tcp.getsockname()[1]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", self.port))
        for listen in (self._accept, self._receive):
            threading.Thread(target=listen, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, address = self.tcp.accept()
            self.arrived.append(address)
            connection.close()

    def _receive(self) -> None:
        while True:
            self.arrived.append(self.udp.recvfrom(1)[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/test.jsonl"


@pytest.fixture(scope="module")
def server():
    return Counting()


@pytest.fixture(autouse=True)
def none_yet(server):
    server.arrived.clear()


# whatever Python knows of the network, in words of its own, of the C library beneath, and of another program
TRIES = """
import _socket, contextlib, socket, subprocess, sys, urllib.request
def try_all(port):
    def raw(kind):
        one = _socket.socket(socket.AF_INET, kind)
        one.settimeout(2)
        one.connect(("127.0.0.1", port))
        one.send(b"x")
    tries = [
        lambda: socket.create_connection(("127.0.0.1", port), 2),
        lambda: socket.socket().connect_ex(("127.0.0.1", port)),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port)),
        lambda: socket.socket(socket.AF_INET6).connect(("::ffff:127.0.0.1", port)),
        lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=2),
        lambda: urllib.request.urlopen("http://name.invalid", timeout=2),
    ]
    if sys.argv[-1] != "python alone":
        tries += [lambda: raw(socket.SOCK_STREAM), lambda: raw(socket.SOCK_DGRAM)]
        other = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        tries += [lambda: subprocess.run([sys.executable, "-c", other], stderr=subprocess.DEVNULL, timeout=20)]
    for one in tries:
        with contextlib.suppress(OSError):
            one()
"""
SHUT = """
import os, sys
from ablate.machine import network
way, port = sys.argv[1], int(sys.argv[2])
kept = {way: shutting for way, shutting in network._SHUTTING.items() if way == sys.argv[1]}
network._SHUTTING.clear()
network._SHUTTING.update(kept)
before = os.getuid(), os.getgid(), os.getpid()
assert network.shut() == way
assert before == (os.getuid(), os.getgid(), os.getpid())
try_all(port)
one, other = socket.socketpair()
one.send(b"x")
assert other.recv(1) == b"x"
"""


@pytest.mark.parametrize("way", ["namespace", "filter", "switches", "open"])
def test_however_it_is_shut_nothing_arrives(server, way):
    if way in network._SHUTTING and not network._is_fit(network._SHUTTING[way]):
        pytest.skip(f"this system allows no {way}")
    code = TRIES + (SHUT if way != "open" else "\ntry_all(int(sys.argv[2]))")
    known = "python alone" if way == "switches" else "all"
    subprocess.run([sys.executable, "-c", code, way, str(server.port), known], check=True, timeout=60)
    assert (len(server.arrived) > 5) if way == "open" else (server.arrived == [])


def test_what_a_stage_starts_has_no_network_and_its_provenance_says_so(tmp_path, server):
    if network.possible() == "switches":
        pytest.skip("this system lets no user shut the network")
    stage = toy(steps=2)
    attempt = ordered(tmp_path, stage)
    start_fresh(attempt).wait(30)
    assert attempt.exit["failure"] == "ok"
    provenance = disk.read_json(Store(tmp_path).folder(stage) / "stage.json")["provenance"]
    assert provenance["network"] == network.possible()


def test_a_fetch_keeps_the_network(tmp_path):
    stage = toy(steps=2)
    attempt = ordered(tmp_path, stage, is_online=True)
    start_fresh(attempt).wait(30)
    assert disk.read_json(Store(tmp_path).folder(stage) / "stage.json")["provenance"]["network"] == "open"


def test_who_wants_the_network_offline_hears_why_and_is_not_tried_again():
    try:
        try:
            raise NetworkIsOff(101, f"{network.WHY}; example.org:443 was wanted")
        except OSError as error:
            raise ConnectionError("Max retries exceeded") from error
    except ConnectionError as error:
        ending = ending_of(error)
    assert ending.failure == "offline"
    assert ending.table.num_retries == 0


PHONES = (
    TRIES
    + """
def docs(dataset):
    try_all(PORT)
    with open("/proc/self/environ") as file:
        open(SEEN, "w").write(file.read() + str(dict(os.environ)))
    return dataset
import os
try_all(PORT)
"""
)


@pytest.mark.slow
def test_python_of_a_task_that_phones_home_reaches_nobody_and_knows_no_secret(tmp_path, server, monkeypatch):
    if network.possible() == "switches":
        pytest.skip("this system lets no user shut the network")
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    monkeypatch.setenv("WANDB_API_KEY", "canary")
    monkeypatch.setenv("https_proxy", server.url)
    tasks = write_tasks(tmp_path / "tasks", endings=f"{ENDINGS}\nprocess_docs: !function phones.docs\n")
    code = PHONES.replace("PORT", str(server.port)).replace("SEEN", repr(str(tmp_path / "seen")))
    (tasks / "phones.py").write_text(code)
    result = evaluate(tmp_path, tasks, "own_endings", allow_code=True)
    assert server.arrived == []
    assert result["tasks"]["own_endings"]["n"] == 9
    seen = (tmp_path / "seen").read_text()
    assert "canary" not in seen
    assert server.url not in seen
    assert "HF_EVALUATE_OFFLINE" in seen


@pytest.mark.slow
def test_a_task_over_http_asks_no_server(tmp_path, server):
    tasks = write_tasks(tmp_path / "tasks", endings=ENDINGS.replace("data/test.jsonl", server.url))
    with pytest.raises(AssertionError, match=r"test\.jsonl is no file of the task's own folder"):
        evaluate(tmp_path, tasks, "own_endings")
    assert server.arrived == []


def evaluate(folder: Path, tasks: Path, task: str, **recipe) -> dict:
    """Has workers fetch and evaluate, as a run does. -> results.json."""
    model = save_model(folder / "model")
    inputs = {"model": fetch("model", model), "include": fetch("tasks", tasks)}
    settings = Recipe(tasks=(task,), dtype="float32", **recipe)
    stage = Stage("evaluate", 4, EvaluateSettings(recipe=settings, lm_eval=lm_eval_version()), inputs)
    heard: list[str] = []
    drive(folder / "root", [*inputs.values(), stage], costs=lambda stage: 1.0, write=heard.append)
    out = Store(folder / "root").folder(stage) / "out" / "results.json"
    assert out.is_file(), "\n".join(heard)
    return json.loads(out.read_text())


def fetch(repo_type: str, path: Path) -> Stage:
    settings = FetchSettings(source="local", repo_type=repo_type, path=str(path), sha256=local_digest(path))
    return Stage("fetch", 1, settings, {})


@pytest.mark.parametrize(
    ("name", "is_kept"),
    [
        *(
            (name, False)
            for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "OPENAI_APIKEY", "MYSQL_PASSWD")
        ),
        *(
            (name, False)
            for name in ("AWS_SECRET_ACCESS_KEY", "https_proxy", "HTTP_PROXY", "all_proxy", "CLIENT_SECRET")
        ),
        *(
            (name, True)
            for name in ("TOKENIZERS_PARALLELISM", "HF_HOME", "PATH", "no_proxy", "CUDA_HOME", "SLURM_JOB_ID")
        ),
    ],
)
def test_an_offline_environment_has_no_secret_and_no_proxy(name, is_kept):
    assert (name in offline({name: "x"})) == is_kept
