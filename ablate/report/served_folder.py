"""A report's folder over HTTP, on this machine's loopback alone: read only, the files of the report and no others."""

import base64
import hashlib
import mimetypes
import os
import re
import socket
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from ablate.core import disk, plain_files
from ablate.core.errors import AblateError
from ablate.report.markup import page_asset
from ablate.report.write import MADE

LOOPBACK: Final = "127.0.0.1"
"""The only address that is ever listened on."""
NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
"""What a browser may call this machine; another name led here by a foreign DNS server is refused (DNS rebinding)."""
PAGE = "report.html"
FIRST_PORT, NUM_TRIED = 8642, 20
PATIENCE_S = 20.0
"""For a request to arrive, and for an answer to be taken."""
LARGEST_FILE = 256 << 20
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')
METHODS = "GET, HEAD"


def listening(folder: Path, port: int | None, every_s: float) -> ThreadingHTTPServer:
    """-> a server of the folder's report, with a page that asks every so many seconds whether it has changed.

    `port`: None for the first free one from 8642 on. Raises AblateError where it is taken.
    """
    handler = partial(_Handler, folder, every_s)
    ports = range(FIRST_PORT, FIRST_PORT + NUM_TRIED) if port is None else (port,)
    for number in ports:
        try:
            return _Server((LOOPBACK, number), handler)
        except OSError as error:
            reason = error
    first, last = ports[0], ports[-1]
    named = f"port {first}" if first == last else f"every port from {first} to {last}"
    raise AblateError(
        f"{named} of {LOOPBACK} cannot be listened on ({reason.strerror}): give another one with --port"
    ) from reason


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is nobody's news."""


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for files that the report consists of."""

    server_version, sys_version = "ablate", ""
    timeout = PATIENCE_S

    def __init__(self, folder: Path, every_s: float, *given: Any) -> None:
        self._folder, self._every_s = folder, every_s
        super().__init__(*given)

    def parse_request(self) -> bool:
        """-> whether it is a request that is answered at all; the others have been."""
        if not super().parse_request():
            return False
        if self.command not in METHODS.split(", "):
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD: nothing is written here")
        elif not is_of_this_machine(self.headers.get_all("Host") or []):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, f"open http://{LOOPBACK}:{port_of(self.server)}/")
        else:
            return True
        return False

    def do_GET(self) -> None:
        name = file_named(self.path)
        data = read(self._folder, name) if name else None
        if name is None or data is None:
            self._refuse(HTTPStatus.NOT_FOUND, "no file of this report")
            return
        version = hashlib.sha256(data).hexdigest()
        policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
        if name == PAGE:
            data, policy = live(data.decode(), version, self._every_s)
        kind = mimetypes.guess_type(name)[0] or "text/plain"
        self._answer(HTTPStatus.OK, data, kind, {"ETag": f'"{version}"', "Content-Security-Policy": policy})

    do_HEAD = do_GET

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._answer(status, f"{status.value} {status.phrase}: {why}\n".encode(), "text/plain", {"Allow": METHODS})

    def _answer(self, status: HTTPStatus, data: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        charset = "; charset=utf-8" if kind.startswith("text/") or kind.endswith(("json", "xml")) else ""
        fixed = {
            "Content-Type": f"{kind}{charset}",
            "Content-Length": str(len(data)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Frame-Options": "DENY",
            "Connection": "close",
        }
        for header, value in (fixed | headers).items():
            self.send_header(header, value)
        self.end_headers()
        self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name in the library)
        """Who reads the report is nobody's business."""


def port_of(server: BaseServer) -> int:
    return int(server.server_address[1])  # type: ignore[index]


def is_of_this_machine(hosts: list[str]) -> bool:
    """Whether a request names, once, this machine as the one that is asked; its port may be that of a tunnel."""
    if len(hosts) != 1:
        return False
    try:
        parts = urlsplit(f"//{hosts[0].strip()}")
        return parts.hostname in NAMES and parts.username is None and (parts.port or 0) >= 0 and not parts.path
    except ValueError:
        return False


def file_named(target: str) -> str | None:
    """-> the name, below the folder, that a request's path stands for; None where none can be meant."""
    try:
        path = unquote(urlsplit(target).path, errors="strict")
    except ValueError:
        return None
    name = path.removeprefix("/") or PAGE
    parts = name.split("/")
    is_plain = all(part and part[0] != "." and part.isprintable() and "\\" not in part for part in parts)
    return name if path.startswith("/") and is_plain else None


def read(folder: Path, name: str) -> bytes | None:
    """-> a file that the report's own list names, as it is now; links are followed nowhere below the folder."""
    record = disk.read_json(folder / MADE)
    names = record.get("files") if isinstance(record, dict) else None
    if not isinstance(names, dict) or name not in names or plain_files.oddity(folder, name):
        return None
    try:
        with plain_files.opened(folder / name) as file:
            return file.read() if os.fstat(file.fileno()).st_size <= LARGEST_FILE else None
    except OSError:
        return None


def live(page: str, version: str, every_s: float) -> tuple[bytes, str]:
    """-> a copy of the page that looks whether it has changed, and its policy; a page without one as it is.

    Beside the page's own script, one more may run, and that may ask where the page came from, nowhere else.
    """
    match = POLICY.search(page)
    if match is None:
        return page.encode(), "default-src 'none'; style-src 'unsafe-inline'"
    script = page_asset("live.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = match[1].replace("script-src ", f"connect-src 'self'; script-src 'sha256-{digest}' ")
    about = f'<meta name="live" content="{version} {round(1000 * every_s)}">'
    copy = page.replace(match[0], f'<meta http-equiv="Content-Security-Policy" content="{policy}">{about}', 1)
    head, end, tail = copy.rpartition("</body>")
    frame = f"{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return f"{head}<script>{script}</script>{end}{tail}".encode(), frame
