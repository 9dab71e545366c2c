"""The page in a real browser: axe-core finds nothing that keeps a reader out, and no network is asked for anything."""

import json
import re
import shutil
import subprocess
from html import unescape
from importlib.resources import files

import pytest
from report_study import bench

from ablate.report import write_report

CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=20000"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
)
CHECK = """
axe.run(document, {resultTypes: ["violations"]}).then(found => {
  const paper = getComputedStyle(document.body).backgroundColor;
  const said = found.violations.map(of => [of.id, of.nodes.slice(0, 3).map(node => node.html.slice(0, 200))]);
  document.body.textContent = "AXE" + JSON.stringify({paper: paper, said: said}) + "END";
});
"""

pytestmark = pytest.mark.skipif(CHROME is None, reason="wants a Chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    of = bench(tmp_path_factory.mktemp("page"))
    plan = of.plan()
    for cell in plan.cells[:-1]:
        if cell.trained:
            of.commit_training(cell)
        of.commit_evaluation(cell, has_finer=True)
    of.fail(plan.cells[-1].evaluate, "error", "a reason")
    return write_report(plan) / "report.html"


def dumped(path, folder, *flags):
    command = [CHROME, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize(
    ("scheme", "paper"), [(1, "rgb(255, 255, 255)"), (0, "rgb(20, 24, 29)")], ids=["light", "dark"]
)
def test_axe_finds_no_violation(page, scheme, paper, tmp_path):
    axe = files("axe_core_python").joinpath("axe.min.js").read_text().replace("</script>", r"<\/script>")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())  # which lets no script in
    opened = tmp_path / "page.html"
    opened.write_text(text.replace("</body>", f"<script>{axe}</script><script>{CHECK}</script></body>"))
    told = re.search(r"AXE(.*?)END", dumped(opened, tmp_path, f"--blink-settings=preferredColorScheme={scheme}"))
    assert told, "axe did not run"
    assert json.loads(unescape(told[1])) == {"paper": paper, "said": []}


def requests(path, folder):
    """-> the addresses that a page had the browser ask; what it asks for itself has no page behind it."""
    log = folder / "net.json"
    dumped(path, folder, f"--log-net-log={log}")
    found = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    return {params["url"] for params in found if params.get("initiator", "not an origin") != "not an origin"}


def test_the_page_asks_nothing_of_a_network(page, tmp_path):
    asking = tmp_path / "asking.html"
    asking.write_text('<img src="http://127.0.0.1:9/seen">')
    assert requests(asking, tmp_path) == {"http://127.0.0.1:9/seen"}
    assert {url for url in requests(page, tmp_path) if not url.startswith("file:")} == set()
