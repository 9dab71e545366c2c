"""A page in a headless Chromium: what it holds, what it asks of a network, what axe-core finds, how it looks."""

import json
import re
import shutil
import subprocess
from html import unescape
from importlib.resources import files
from pathlib import Path
from typing import Any

CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=20000"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
)
DARK, LIGHT = "--blink-settings=preferredColorScheme=0", "--blink-settings=preferredColorScheme=1"
AXE = """
axe.run(document, {resultTypes: ["violations"]}).then(found => {
  const paper = getComputedStyle(document.body).backgroundColor;
  const said = found.violations.map(of => [of.id, of.nodes.slice(0, 3).map(node => node.html.slice(0, 200))]);
  document.body.textContent = "SEEN" + JSON.stringify({paper: paper, said: said}) + "END";
});
"""
FRAME = """<!DOCTYPE html><meta charset="utf-8">
<style>body {{ margin: 0 }} iframe {{ border: 0; display: block }}</style>
<body><script>addEventListener("message", event => {{ document.title = "SEEN" + event.data + "END" }})</script>
<iframe src="{source}" width="{width}" height="{height}"></iframe></body>"""
TELLING = "parent.postMessage(JSON.stringify((() => {{ {body} }})()), '*')"


def with_scripts(page: Path, folder: Path, *scripts: str) -> Path:
    """-> a copy of the page that also runs these."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())  # which lets no other in
    path = folder / "page.html"
    path.write_text(text.replace("</body>", "".join(f"<script>{script}</script>" for script in scripts) + "</body>"))
    return path


def chrome(path: Path, folder: Path, *flags: str) -> str:
    """-> what Chromium writes to its output, with a profile of its own in the folder."""
    command = [str(CHROME), *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=180).stdout


def dumped(path: Path, folder: Path, *flags: str) -> str:
    """-> the document as it stands once its scripts have run."""
    return chrome(path, folder, *flags, "--dump-dom")


def seen(path: Path, folder: Path, *flags: str) -> Any:
    """-> what a script of the page wrote between SEEN and END."""
    match = re.search(r"SEEN(.*?)END", dumped(path, folder, *flags), re.DOTALL)
    assert match, "the script did not run"
    return json.loads(unescape(match[1]))


def axe_findings(page: Path, folder: Path, scheme: str = LIGHT) -> Any:
    """-> `said`: axe-core's violations with the first places of each, and `paper`: the colour of the page."""
    axe = files("axe_core_python").joinpath("axe.min.js").read_text().replace("</script>", r"<\/script>")
    return seen(with_scripts(page, folder, axe, AXE), folder, scheme)


def requests(path: Path, folder: Path) -> set[str]:
    """-> the addresses that a page had the browser ask; what it asks for itself has no page behind it."""
    log = folder / "net.json"
    dumped(path, folder, f"--log-net-log={log}")
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    return {params["url"] for params in events if params.get("initiator", "not an origin") != "not an origin"}


def told_at(page: Path, folder: Path, width: int, body: str) -> Any:
    """-> what the body of a function returns in a page that is so many pixels wide, however few."""
    copy = with_scripts(page, folder, TELLING.format(body=body))
    return seen(_framed(copy, folder, width, 1100), folder, f"--window-size={max(width, 500)},1100")


def photographed(page: Path, picture: Path, folder: Path, width: int, height: int, scheme: str = LIGHT) -> None:
    """Takes a picture of a page's top; Chromium's own windows are at least 500 pixels wide, its frames need not be."""
    flags = (f"--screenshot={picture}", f"--window-size={max(width, 500)},{height}", "--hide-scrollbars", scheme)
    chrome(_framed(page, folder, width, height), folder, *flags)


def as_printed(page: Path, folder: Path) -> Path:
    """-> a copy whose styles for print hold on a screen."""
    path = folder / "printed.html"
    path.write_text(re.sub(r"@media print\b", "@media all", page.read_text()))
    return path


def num_printed_pages(page: Path, folder: Path) -> int:
    printed = folder / "page.pdf"
    chrome(page, folder, f"--print-to-pdf={printed}", "--no-pdf-header-footer")
    return len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes()))


def _framed(page: Path, folder: Path, width: int, height: int) -> Path:
    path = folder / "frame.html"
    path.write_text(FRAME.format(source=page.as_uri(), width=width, height=height))
    return path
