"""A hub of models of which only config.json and the headers of their files can be had, on this machine's loopback."""

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SHA = "0123456789abcdef0123456789abcdef01234567"
"""The commit of every model."""


@contextlib.contextmanager
def header_hub(folders: Mapping[str, Path]) -> Iterator[tuple[str, dict[str, int]]]:
    """Serves models by id from their folders. -> its address, and the bytes of each file that it gave out."""
    sent: dict[str, int] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(is_body=False)

        def do_GET(self) -> None:
            self._answer(is_body=True)

        def _answer(self, *, is_body: bool) -> None:
            body = self._about() if self.path.startswith("/api/") else self._file()
            if body is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
            else:
                self.send_response(200)
                self.send_header("ETag", f'"{len(body)}"')
                self.send_header("X-Repo-Commit", SHA)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            if is_body and body:
                self.wfile.write(body)
                sent[self.path] = sent.get(self.path, 0) + len(body)

        def _about(self) -> bytes | None:
            names = [name for name in folders if self.path.startswith(f"/api/models/{name}")]
            return json.dumps({"id": names[0], "sha": SHA, "siblings": []}).encode() if names else None

        def _file(self) -> bytes | None:
            repo, _, name = self.path.lstrip("/").partition(f"/resolve/{SHA}/")
            path = folders[repo] / name if repo in folders else None
            return path.read_bytes() if path and path.is_file() else None

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", sent
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
