"""Photographs report pages, and tells a line of each: words, sizes, what axe-core finds, what it asks of a network.

    python tests/photograph.py --out /tmp/pictures reports/tiny/report.html ...

At 1280, 600 and 400 pixels, light and dark, and as printed. A picture is cut in pieces of 1,600 pixels, the first one
of 1,100.
"""

import argparse
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image
from support import browser

FIRST, NEXT = 1100, 1600
TALLEST = 15_000
"""Pixels of a picture; Chromium draws no more than 16,384."""
A4 = 718
"""Pixels between the margins of its sheet."""
MEASURE = """
const hidden = node => !node.parentElement.checkVisibility()
  || node.parentElement.closest("svg, script, style, noscript");
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT, node =>
  hidden(node) ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT);
const isWord = word => /[\\p{L}\\p{N}]/u.test(word);
let words = 0;
while (walker.nextNode()) words += walker.currentNode.data.split(/\\s+/).filter(isWord).length;
const page = document.documentElement;
const first = document.querySelector("main section");
const wide = [...document.querySelectorAll("main *")].filter(
  one => one.getBoundingClientRect().right > page.clientWidth + 1
    && !one.closest(".scroll, [tabindex], svg, details:not([open])"));
return {words: words, height: page.scrollHeight, over: page.scrollWidth - page.clientWidth,
  page1: first ? Math.round(first.getBoundingClientRect().bottom + scrollY) : page.scrollHeight,
  wide: wide.slice(0, 3).map(one => one.tagName + "." + one.className)};
"""


def line_of(page: Path, width: int, folder: Path) -> dict[str, Any]:
    measured: dict[str, Any] = browser.told_at(page, folder, width, MEASURE)
    return measured


def pictures(page: Path, name: str, out: Path, folder: Path, width: int, scheme: str, height: int) -> None:
    """Writes name-1.png, name-2.png ... of a page from its top."""
    whole = folder / "whole.png"
    height = min(height, TALLEST)
    browser.photographed(page, whole, folder, width, height, scheme)
    with Image.open(whole) as picture:
        tops = [0, *range(FIRST, height, NEXT)]
        for number, (top, bottom) in enumerate(zip(tops, [*tops[1:], height], strict=True), 1):
            picture.crop((0, top, width, bottom)).save(out / f"{name}-{number}.png")


def show(page: Path, out: Path, widths: list[int], folder: Path) -> None:
    name = page.parent.name
    findings = {scheme: browser.axe_findings(page, folder, flag)["said"] for scheme, flag in SCHEMES.items()}
    asked = {url for url in browser.requests(page, folder) if not url.startswith("file:")}
    measured = {width: line_of(page, width, folder) for width in widths}
    for width, (scheme, flag) in product(widths, SCHEMES.items()):
        pictures(page, f"{name}-{width}-{scheme}", out, folder, width, flag, measured[width]["height"])
    printed = browser.as_printed(page, folder)
    pictures(printed, f"{name}-print", out, folder, A4, browser.LIGHT, line_of(printed, A4, folder)["height"])
    sheets = browser.num_printed_pages(page, folder)
    print(f"{page}: {page.stat().st_size / 1e6:.2f} MB, {sheets} sheets, requests {sorted(asked) or 'none'}")
    for scheme, violations in findings.items():
        print(f"  axe {scheme}: {violations or 'nothing'}")
    for width, seen in measured.items():
        print(
            f"  {width} px: {seen['words']:,} words, first section at {seen['page1']:,} px of {seen['height']:,},"
            f" {seen['over']} px over the edge{': ' if seen['wide'] else ''}{', '.join(seen['wide'])}"
        )


SCHEMES = {"light": browser.LIGHT, "dark": browser.DARK}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    parser.add_argument("--widths", nargs="+", type=int, default=[1280, 600, 400])
    given = parser.parse_args()
    if browser.CHROME is None:
        sys.exit("there is no Chromium here")
    given.out.mkdir(parents=True, exist_ok=True)
    for page in given.pages:
        with tempfile.TemporaryDirectory() as folder:
            show(page.resolve(), given.out, given.widths, Path(folder))


if __name__ == "__main__":
    main()
