"""A page in a real browser, without a network and without a window: what scripts that are put into it see."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=20000"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
)
FRAMED = """
addEventListener("load", () => {
  const seen = {};
  for (const frame of document.querySelectorAll("iframe"))
    seen[frame.width] = look(frame.contentDocument, frame.contentWindow);
  document.body.textContent = "SEEN" + JSON.stringify(seen) + "END";
});
"""


def with_scripts(page: Path, folder: Path, *scripts: str) -> Path:
    """-> a copy of the page that also runs these."""
    text = without_policy(page.read_text())
    path = folder / "page.html"
    path.write_text(text.replace("</body>", "".join(f"<script>{script}</script>" for script in scripts) + "</body>"))
    return path


def without_policy(text: str) -> str:
    """-> a page that lets other scripts in."""
    return re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)


def dumped(path: Path, folder: Path, *flags: str) -> str:
    """-> the document as it stands after its scripts."""
    assert CHROME
    command = [CHROME, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def seen_at(page: Path, folder: Path, look: str, widths: tuple[int, ...]) -> dict[int, Any]:
    """-> width in pixels -> what the body of a function `look(document, window)` returns of the page at that width."""
    source = escape(without_policy(page.read_text()), quote=True)
    frames = "".join(f'<iframe width="{width}" height="1100" srcdoc="{source}"></iframe>' for width in widths)
    path = folder / "frames.html"
    script = f"function look(document, window) {{ {look} }}\n{FRAMED}"
    path.write_text(f"<!doctype html><meta charset=utf-8><body>{frames}<script>{script}</script></body>")
    match = re.search(r"SEEN(.*?)END", dumped(path, folder, "--window-size=1400,1200"))
    assert match, "the page did not load"
    return {int(width): seen for width, seen in json.loads(unescape(match[1])).items()}
