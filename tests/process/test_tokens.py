"""A token of the hub, wherever it is kept, is in no file under the root, no log and no command line."""

import base64
import http.server
import os
import signal
import threading
from pathlib import Path

import psutil
import pytest
from support.processes import command_line
from support.toys import ordered, ours, toy, wait_for

from ablate.core import capped_log, secrets
from ablate.core.errors import without_secrets
from ablate.execution.executors.launch import start_fresh
from ablate.stages.fetch import FetchSettings
from ablate.store.stage import Stage

CANARY = "hf_canary0123456789"
PASSWORD = "canary0123456789"
"""Part of the other: one look finds both."""

PRINTING = """
import os, traceback
before = traceback.print_exc
def print_all(*arguments, **more):
    print("the environment:", dict(os.environ), flush=True)
    before(*arguments, **more)
traceback.print_exc = print_all
"""


class Reflecting(http.server.BaseHTTPRequestHandler):
    """A hub that refuses everything and says in its message with which token it was asked."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("X-Error-Message", f"refused: {self.headers.get('Authorization')} is not enough")
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.asked.append(str(self.headers.get("Authorization")))

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Reflecting)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


BASIC = base64.b64encode(f"user:{PASSWORD}".encode()).decode()


@pytest.fixture(params=["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "HF_ENDPOINT"])
def credentials(request, tmp_path_factory, monkeypatch, hub) -> str:
    """The canary in one of the places where huggingface_hub looks for a token, or in the hub's URL.

    -> how it is sent to the hub.
    """
    home = tmp_path_factory.mktemp("home")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(home))
    (home / "sitecustomize.py").write_text(PRINTING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(home), os.environ.get("PYTHONPATH", "")]))
    user = f"user:{PASSWORD}@" if request.param == "HF_ENDPOINT" else ""
    monkeypatch.setenv("HF_ENDPOINT", f"http://{user}127.0.0.1:{hub.server_address[1]}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    if request.param in ("HF_TOKEN_PATH", "HF_HOME"):
        (home / "token").write_text(CANARY)
    if request.param == "HF_TOKEN_PATH":
        monkeypatch.setenv("HF_TOKEN_PATH", str((home / "token").rename(home / "elsewhere")))
    elif request.param not in ("HF_HOME", "HF_ENDPOINT"):
        monkeypatch.setenv(request.param, CANARY)
    return f"Basic {BASIC}" if user else f"Bearer {CANARY}"


def _places(root: Path) -> list[str]:
    """-> the files under a root, and the command lines, that hold any of it."""
    contents = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    files = [str(path) for path, data in contents.items() if PASSWORD.encode() in data or BASIC.encode() in data]
    lines = [" ".join(command_line(process)) for process in psutil.process_iter()]
    return files + [line for line in lines if PASSWORD in line]


def test_an_error_of_the_hubs_library_and_a_print_of_the_environment_tell_no_token(tmp_path, credentials, hub):
    settings = FetchSettings(source="hub", repo_type="model", repo="a/b", revision="0" * 40)
    attempt = ordered(tmp_path, Stage("fetch", 1, settings), is_online=True)
    assert start_fresh(attempt).wait(60) == 1
    log = attempt.log.read_text()
    assert "the environment:" in log
    assert "Traceback" in log
    assert credentials in hub.asked
    assert _places(tmp_path) == []


def test_a_worker_that_is_killed_has_left_no_token_anywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", CANARY)
    attempt = ordered(tmp_path, toy(steps=1000, step_s=0.02), is_online=True)
    supervisor = start_fresh(attempt)
    wait_for(lambda: attempt.metrics.is_file() and attempt.metrics.stat().st_size)
    assert _places(tmp_path) == []
    for process in ours(tmp_path):
        process.send_signal(signal.SIGKILL)
    supervisor.wait(10)
    assert _places(tmp_path) == []


def test_no_half_of_a_token_gets_by_between_two_pieces_of_a_log(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "another-sort-of-token")
    text = f"one {CANARY}x two another-sort-of-token three https://user:{PASSWORD}@host/x\nBearer abcdefgh,\nend"
    for size in (1, 2, 3, 7, 1000):
        log = capped_log.CappedLog(tmp_path / f"{size}.txt")
        for start in range(0, len(text), size):
            log.write(text[start : start + size].encode())
        log.flush()
        assert log.path.read_text() == "one *** two *** three https://host/x\nBearer ***\nend"


def test_no_half_of_a_token_gets_by_where_a_long_line_is_cut(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "another-sort-of-token")
    log = capped_log.CappedLog(tmp_path / "log.txt")
    log.write(b"{" + b"'NAME': 'value', " * 1000 + b"'HF_TOKEN': 'another-sort")
    assert len(log.path.read_bytes()) > 16_000
    log.write(b"-of-token'}\n")
    assert log.path.read_text().endswith("'value', 'HF_TOKEN': '***'}\n")


def test_a_line_is_in_the_log_as_soon_as_it_is_whole_and_a_long_one_before(tmp_path):
    log = capped_log.CappedLog(tmp_path / "log.txt")
    log.write(b"a line\n10 %\rhalf")
    assert log.path.read_bytes() == b"a line\n10 %\r"
    log.write(b" of one" + b"x" * 10_000)
    assert log.path.read_bytes() == b"a line\n10 %\rhalf of one" + b"x" * 10_000
    assert log.num_bytes == len(log.path.read_bytes())


def test_what_is_hidden_and_what_is_not(monkeypatch):
    for name in [name for name in os.environ if secrets.is_named_so(name)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("DJANGO_SECRET_KEY", "fedcba9876543210")
    monkeypatch.setenv("SHORT_TOKEN", "model")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:proxypass@proxy:3128")
    assert without_secrets("key 0123456789abcdef") == "key ***"
    assert without_secrets("key fedcba9876543210") == "key ***"
    assert without_secrets("a model of hf_home, proxy:3128") == "a model of hf_home, proxy:3128"
    assert without_secrets("tried me with proxypass") == "tried me with ***"
    assert without_secrets("hf_abcdefghijklmnopqrstuvwxyz") == "***"
    assert without_secrets("https://a:b@huggingface.co/x") == "https://huggingface.co/x"
