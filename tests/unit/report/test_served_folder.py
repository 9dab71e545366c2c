"""A report that is served: to this machine alone, read only, its own files and no others, by its own name."""

import base64
import hashlib
import http.client
import os
import re
import signal
import socket
import subprocess
import threading
import time
from html import unescape

import pytest
from support.browser import CHROME, FLAGS

from ablate.core.errors import AblateError
from ablate.report import served_folder, write
from ablate.report.served_folder import LOOPBACK, is_of_this_machine, listening, live

PAGE = (
    '<!DOCTYPE html><html><head><meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "style-src 'unsafe-inline'; script-src 'sha256-own'\"></head><body><p>&lt;/body&gt;</p></body></html>"
)
FILES = {"report.html": PAGE.encode(), "results.csv": b"a,b\n", "figures/one.svg": b"<svg/>", "tables/a b.csv": b"1\n"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secret").write_text("not for you")
    (tmp_path / "reports").mkdir()
    folder = tmp_path / "reports" / "small"
    write._write(folder, FILES, {"inputs": "as it was"})
    (folder / "a person's.txt").write_text("mine")
    return folder


@pytest.fixture
def server(folder):
    server = listening(folder, None, 0.2)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(server, target, method="GET", **headers):
    """-> status, headers and content of an answer; the target goes out as it is."""
    connection = http.client.HTTPConnection(*server.server_address, timeout=10)
    connection.putrequest(method, target, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def raw(server, data):
    with socket.create_connection(server.server_address, timeout=10) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_it_listens_on_the_loopback_address_and_on_no_other(server):
    assert server.server_address[0] == LOOPBACK == "127.0.0.1"
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in others - {a for a in others if a.startswith("127.")}:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((address, server.server_address[1]), timeout=2)


@pytest.mark.parametrize("name", ["report.html", "results.csv", "figures/one.svg", "tables/a%20b.csv"])
def test_each_file_of_the_report_is_served_under_its_name(server, name):
    status, headers, data = ask(server, f"/{name}")
    assert status == 200
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    if name != "report.html":
        assert data == FILES[name.replace("%20", " ")]


def test_the_page_stands_at_the_root(server):
    assert ask(server, "/")[2] == ask(server, "/report.html")[2]


@pytest.mark.parametrize(
    "target",
    [
        "/../secret",
        "/../../secret",
        "/..%2f..%2fsecret",
        "/%2e%2e/%2e%2e/secret",
        "/figures/../../../secret",
        "/figures/..%5c..%5c..%5csecret",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/etc/passwd",
        "/report.html%00.csv",
        "/.made.json",
        "/a%20person's.txt",
        "/figures",
        "/figures/",
        "/%ff%fe",
        "/results.csv/",
        "secret",
        "file:///etc/passwd",
    ],
)
def test_nothing_but_files_of_the_report_is_served(server, target):
    status, _, data = ask(server, target)
    assert (status, data.partition(b":")[0]) == (404, b"404 Not Found")


@pytest.mark.parametrize("name", ["results.csv", "figures"])
def test_a_link_in_the_folder_leads_nowhere(server, folder, name):
    outside = folder.parent.parent / "outside"
    outside.mkdir()
    (outside / "one.svg").write_text("not for you")
    (folder / "figures" / "one.svg").unlink()
    (folder / "figures").rmdir()
    (folder / "results.csv").unlink()
    (folder / "figures").symlink_to(outside)
    (folder / "results.csv").symlink_to(outside / "one.svg")
    target = "/figures/one.svg" if name == "figures" else "/results.csv"
    assert ask(server, target)[0] == 404


def test_a_list_of_files_that_names_one_outside_does_not_help(server, folder):
    record = write._recorded(folder)
    record["files"]["../../secret"] = record["files"]["/etc/passwd"] = "0"
    write.disk.write_json(folder / write.MADE, record)
    for target in ("/../../secret", "//etc/passwd", "/%2fetc/passwd"):
        assert ask(server, target)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "BREW"])
def test_only_reading_is_allowed(server, folder, method):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    status, headers, _ = ask(server, "/report.html", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_head_says_what_get_would_without_the_content(server):
    status, headers, data = ask(server, "/report.html", "HEAD")
    assert (status, data) == (200, b"")
    assert headers["ETag"] == ask(server, "/report.html")[1]["ETag"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:8642", "127.0.0.1:9999", "[::1]:8642"])
def test_this_machine_may_be_called_by_its_own_names(server, host):
    assert ask(server, "/", Host=host)[0] == 200


FOREIGN = (
    *("evil.example", "evil.example:8642", "127.0.0.1.evil.example", "localhost.evil.example", "", "user@localhost"),
    *("0.0.0.0", "2130706433", "localhost/evil", "[::ffff:127.0.0.1]", "localhost:x", "127.0.0.1:99999"),
)


@pytest.mark.parametrize("host", FOREIGN)
def test_a_name_that_a_foreign_dns_server_leads_here_is_refused(server, host):
    status, _, data = ask(server, "/report.html", Host=host)
    assert status == 421
    assert b"<html" not in data


def test_a_request_names_its_host_once(server):
    for hosts in (b"", b"Host: localhost\r\nHost: localhost\r\n", b"Host: evil.example\r\nHost: localhost\r\n"):
        assert b" 421 " in raw(server, b"GET / HTTP/1.1\r\n" + hosts + b"\r\n").splitlines()[0]
    assert not is_of_this_machine([])


@pytest.mark.parametrize(
    "data", [b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70000 + b"\r\n"]
)
def test_nonsense_is_answered_by_an_error_and_the_next_reader_is_served(server, data):
    assert b"&lt;/body" not in raw(server, data)
    assert ask(server, "/")[0] == 200


def test_the_served_copy_may_ask_its_own_origin_and_the_file_stays_as_it_is(server, folder):
    _, headers, data = ask(server, "/")
    page = data.decode()
    (meta,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    allowed = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    parts = dict(part.strip().split(" ", 1) for part in unescape(meta).split(";"))
    assert parts["default-src"] == "'none'"
    assert parts["connect-src"] == "'self'"
    assert parts["script-src"].split() == [f"'sha256-{allowed[0]}'", "'sha256-own'"]
    assert headers["Content-Security-Policy"].startswith(meta)
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert (folder / "report.html").read_text() == PAGE
    assert page.index("<script>") > page.index("&lt;/body&gt;")


def test_a_page_without_a_policy_gets_no_script_either():
    data, policy = live("<p>anything</p>", "v", 3.0)
    assert data == b"<p>anything</p>"
    assert "script-src" not in policy


def test_a_changed_page_has_another_tag_and_is_served_at_once(server, folder):
    first = ask(server, "/", "HEAD")[1]["ETag"]
    assert ask(server, "/", "HEAD")[1]["ETag"] == first
    write._write(folder, FILES | {"report.html": PAGE.replace("<p>", "<p>more").encode()}, {"inputs": "later"})
    assert ask(server, "/", "HEAD")[1]["ETag"] != first
    assert b"<p>more" in ask(server, "/")[2]


def test_a_port_that_is_taken_is_said_and_without_one_the_next_free_one_is_used(folder, server):
    taken = server.server_address[1]
    with pytest.raises(
        AblateError, match=rf"port {taken} of 127.0.0.1 cannot be listened on .*another one with --port"
    ):
        listening(folder, taken, 3.0)
    with listening(folder, None, 3.0) as other:
        assert taken < other.server_address[1] < served_folder.FIRST_PORT + served_folder.NUM_TRIED


@pytest.mark.skipif(CHROME is None, reason="wants a Chromium")
def test_an_open_page_loads_itself_again_when_the_report_has_changed_and_only_then(server, folder, tmp_path):
    asked = []
    answer = server.RequestHandlerClass

    class Counting(served_folder._Handler):
        def do_GET(self):  # noqa: N802 (its name in the library)
            asked.append((self.command, self.path))
            super().do_GET()

        do_HEAD = do_GET

    server.RequestHandlerClass = lambda *given: Counting(*answer.args, *given)
    flags = [flag for flag in FLAGS if "virtual-time" not in flag]
    address = f"http://{LOOPBACK}:{server.server_address[1]}/"
    command = [CHROME, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0", address]
    browser = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        until(lambda: asked.count(("HEAD", "/")) > 3)
        assert asked.count(("GET", "/")) == 1
        write._write(folder, FILES | {"report.html": PAGE.replace("<p>", "<p>more").encode()}, {"inputs": "later"})
        until(lambda: asked.count(("GET", "/")) == 2)
        num = len(asked)
        until(lambda: len(asked) > num + 3)
        assert asked.count(("GET", "/")) == 2
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
