"""Draws docs/packages.svg: the packages as floors, and who imports whom.

The floors are those of pyproject.toml, the arrows the imports in ablate/. The same tree gives the same text, but for
lines of code: a number is drawn anew once it is wrong by more than a seventh.

    make picture
"""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "packages.svg"

PHRASES = {
    "cli": "one file a group of verbs, and what verbs print",
    "run": "the library's calls",
    "export": "a cell's model as a folder",
    "report": "results become pages, figures and tables",
    "results": "what may be said of the scores",
    "maintenance": "verify, gc, doctor",
    "execution": "which stage runs next, where, and what became of it",
    "planning": "a study becomes stages; what they need, cost and share",
    "stages": "one file a kind of stage: fetch, rows, finetune, distill, evaluate",
    "evaluation": "a model is asked lm-eval's questions",
    "training": "fine-tuning and distillation, one loop",
    "data": "rows become tokens and a loss mask",
    "study": "the study file: its schema, its cells, what is wrong with it",
    "losses": "one file a loss",
    "feature_losses": "on hidden states",
    "store": "runs/: keys, commits",
    "machine": "GPUs and slots",
    "core": "values and digests, the disk, processes, errors",
    "example": "a tiny world",
}
"""Package -> what it is about, in the words of somebody who sees it first."""

GROUPS = {
    "the ways in": ("cli", "run", "export"),
    "what came of it": ("report", "results", "maintenance"),
    "what runs when": ("execution", "planning"),
    "the work": ("stages", "evaluation", "training", "data"),
    "what it is about": ("study", "losses", "feature_losses", "store", "machine"),
    "the ground": ("core", "example"),
}
HUES = dict(zip(GROUPS, ("#8250df", "#bf3989", "#bc4c00", "#1a7f37", "#0969da", "#59636e"), strict=True))
HUES_AT_NIGHT = dict(zip(GROUPS, ("#ab7df8", "#db61a2", "#db6d28", "#3fb950", "#4493f8", "#9198a1"), strict=True))

NOTES = (
    "Imports go down only; packages side by side know nothing of each other. A bar, and its number: lines of code.",
    "An arrow: it imports from the floor below. The lines on the right: imports that skip floors, a dot for each.",
)

HIDDEN = {"__main__", "__init__"}
"""Two lines each, that hand on."""
WIDTH, LEFT, RIGHT = 1000, 150, 670
TOP, FLOOR, GAP = 100, 58, 40
LANE, FIRST_LANE = 22, 700
BETWEEN = 12
PX_PER_LINE = 0.035
WIDE = {"core": 3, "feature_losses": 1.3, "store": 1.35, "machine": 1.1}
"""Shares of a floor's width, where they are not alike."""

STYLE = """
text { font-family: -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; }
.paper { fill: #ffffff; } .box { fill: #f6f8fa; } .name, .title { fill: #1f2328; font-weight: 600; }
.title { font-size: 19px; } .name { font-size: 15px; } .phrase, .note, .count { fill: #59636e; font-size: 12px; }
.count { font-size: 10px; } .group { font-size: 13px; font-weight: 600; }
.strong { stroke: #1f2328; stroke-width: 2.2; fill: none; } .strong-head { fill: #1f2328; }
.bus { stroke: #b7bfc8; stroke-width: 1.3; fill: none; } .bus-head { fill: #98a1ab; }
.lane { stroke-width: 1.5; fill: none; opacity: 0.5; }
"""
AT_NIGHT = """
.paper { fill: #0d1117; } .box { fill: #151b23; } .name, .title { fill: #f0f6fc; }
.phrase, .note, .count { fill: #9198a1; }
.strong { stroke: #f0f6fc; } .strong-head { fill: #f0f6fc; } .bus { stroke: #4a525c; } .bus-head { fill: #656c76; }
"""


class Box(NamedTuple):
    """A package in the picture."""

    name: str
    floor: int
    """Its floor, 0 at the top."""
    left: float
    right: float
    lines: int
    """Of code, rounded."""

    @property
    def top(self) -> float:
        return TOP + self.floor * (FLOOR + GAP)

    @property
    def bottom(self) -> float:
        return self.top + FLOOR


def main() -> None:
    """Writes the picture."""
    PICTURE.write_text(picture(before=PICTURE.read_text() if PICTURE.is_file() else ""))


def picture(root: Path = ROOT, *, before: str) -> str:
    """-> the picture of the packages under a root, as SVG; `before`: the one that there is."""
    floors = floors_of(root)
    boxes = {box.name: box for box in _boxes(root, floors, _drawn_lines(before))}
    arrows = sorted((a, b) for a in boxes for b in imported_by(root, a) if b in boxes)
    near = [(a, b) for a, b in arrows if boxes[b].floor - boxes[a].floor == 1]
    far = [pair for pair in arrows if pair not in near]
    height = TOP + len(floors) * (FLOOR + GAP) - GAP + 28
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' role="img" aria-label="The packages of ablate as floors, and which imports which">',
        f"<style>{_style()}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="12"/>',
        *_head(),
        *_groups(boxes),
        *_far_arrows(boxes, far),
        *(part for box in boxes.values() for part in _box(box)),
        *_near_arrows(boxes, near),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def floors_of(root: Path) -> list[list[str]]:
    """-> the packages, floor by floor from the top, as pyproject.toml has import-linter hold them."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    floors = [[name.strip() for name in layer.split("|")] for layer in layers]
    return [floor for floor in floors if not HIDDEN.issuperset(floor)]


def imported_by(root: Path, package: str) -> set[str]:
    """-> the packages, and modules at the root, of which a package imports something."""
    names = {name for path in _modules(root, package) for name in _imports(ast.parse(path.read_text()))}
    return names - {package}


def _modules(root: Path, package: str) -> list[Path]:
    folder = root / "ablate" / package
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("ablate."))


def _num_lines(root: Path, package: str, drawn: int) -> int:
    """-> lines of code: those drawn before while they are nearly right, else in hundreds."""
    num = sum(len(path.read_text().splitlines()) for path in _modules(root, package))
    return drawn if drawn and abs(num - drawn) < max(100, num / 7) else max(1, round(num / 100)) * 100


def _drawn_lines(picture: str) -> Mapping[str, int]:
    return {name: int(lines) for name, lines in re.findall(r'id="(\w+)" data-lines="(\d+)"', picture)}


def _boxes(root: Path, floors: Sequence[Sequence[str]], drawn: Mapping[str, int]) -> Iterator[Box]:
    for number, floor in enumerate(floors):
        shares = [WIDE.get(name, 1) for name in floor]
        room, left = RIGHT - LEFT - BETWEEN * (len(floor) - 1), float(LEFT)
        for name, share in zip(floor, shares, strict=True):
            right = left + room * share / sum(shares)
            lines = _num_lines(root, name, drawn.get(name, 0))
            yield Box(name, number, round(left), round(right), lines)
            left = right + BETWEEN


def _group_of(package: str) -> str:
    return next(group for group, packages in GROUPS.items() if package in packages)


def _slug(group: str) -> str:
    return group.replace(" ", "-")


def _style() -> str:
    def hues(hue_of_group: Mapping[str, str]) -> str:
        return "\n".join(
            f".fill-{_slug(group)} {{ fill: {hue}; }} .line-{_slug(group)} {{ stroke: {hue}; }}"
            for group, hue in hue_of_group.items()
        )

    night = f"@media (prefers-color-scheme: dark) {{{AT_NIGHT}{hues(HUES_AT_NIGHT)}\n}}"
    return f"{STYLE}{hues(HUES)}\n{night}\n"


def _head() -> Iterator[str]:
    yield f'<text class="title" x="{LEFT}" y="36">The packages of ablate</text>'
    for y, note in zip((58, 75), NOTES, strict=True):
        yield f'<text class="note" x="{LEFT}" y="{y}">{note}</text>'


def _groups(boxes: Mapping[str, Box]) -> Iterator[str]:
    for group, packages in GROUPS.items():
        top = min(boxes[name].top for name in packages)
        bottom = max(boxes[name].bottom for name in packages)
        yield f'<rect class="fill-{_slug(group)}" x="{LEFT - 14}" y="{top}" width="4" height="{bottom - top}" rx="2"/>'
        yield (
            f'<text class="group fill-{_slug(group)}" x="{LEFT - 26}" y="{(top + bottom) / 2 + 4}" text-anchor="end">'
            f"{group}</text>"
        )


def _box(box: Box) -> Iterator[str]:
    hue = _slug(_group_of(box.name))
    yield (
        f'<rect id="{box.name}" data-lines="{box.lines}" class="box line-{hue}" x="{box.left}" y="{box.top}"'
        f' width="{box.right - box.left}" height="{FLOOR}"'
        ' rx="7" stroke-width="1.2"/>'
    )
    yield f'<text class="name" x="{box.left + 12}" y="{box.top + 20}">{box.name}</text>'
    yield f'<text class="phrase" x="{box.left + 12}" y="{box.top + 37}">{PHRASES[box.name]}</text>'
    length = box.lines * PX_PER_LINE
    yield (
        f'<rect class="fill-{hue}" x="{box.left + 12}" y="{box.top + 46}" width="{length:.0f}" height="4" rx="2"'
        ' opacity="0.75"/>'
    )
    yield f'<text class="count" x="{box.left + 17 + length:.0f}" y="{box.top + 51}">{box.lines:,}</text>'


def _near_arrows(boxes: Mapping[str, Box], arrows: Sequence[tuple[str, str]]) -> Iterator[str]:
    for one, other in arrows:
        above, below = boxes[one], boxes[other]
        x = (max(above.left, below.left) + min(above.right, below.right)) / 2
        yield f'<path class="strong" d="M{x} {above.bottom + 1}V{below.top - 8}"/>'
        yield _head_down("strong-head", x, below.top - 1, 5.5, 9)


def _head_down(name: str, x: float, y: float, half: float, length: float) -> str:
    return f'<path class="{name}" d="M{x} {y}l{-half} {-length}h{2 * half}z"/>'


def _far_arrows(boxes: Mapping[str, Box], arrows: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Each package has a lane on the right, with a dot where it turns into the line to what it imports."""
    sources = [name for name in boxes if any(one == name for one, _ in arrows)]
    targets = [name for name in boxes if any(other == name for _, other in arrows)]
    lane = {name: FIRST_LANE + LANE * number for number, name in enumerate(reversed(sources))}
    entry = {name: _entry(boxes, name) for name in targets}
    for target in targets:
        yield from _bus(boxes[target], entry[target], max(lane[one] for one, other in arrows if other == target))
    for source in sources:
        reached = [entry[other] for one, other in arrows if one == source]
        yield from _lane(boxes, boxes[source], lane[source], reached)


def _entry(boxes: Mapping[str, Box], target: str) -> float:
    """-> the height of the line that leads to a package: those of one floor are side by side."""
    floor = [name for name in boxes if boxes[name].floor == boxes[target].floor]
    return boxes[target].top - 12 - 8 * floor.index(target)


def _bus(box: Box, y: float, end: float) -> Iterator[str]:
    x = box.right - 16
    yield f'<path class="bus" d="M{end} {y}H{x + 5}Q{x} {y} {x} {y + 5}V{box.top - 5}"/>'
    yield _head_down("bus-head", x, box.top - 1, 3.5, 6)


def _lane(boxes: Mapping[str, Box], box: Box, x: float, reached: Sequence[float]) -> Iterator[str]:
    hue = _slug(_group_of(box.name))
    floor = [name for name in boxes if boxes[name].floor == box.floor]
    y, start = box.bottom + 6 + 6 * floor.index(box.name), box.right - 34
    yield (
        f'<path class="lane line-{hue}" d="M{start} {box.bottom}V{y - 5}Q{start} {y} {start + 5} {y}'
        f'H{x - 6}Q{x} {y} {x} {y + 6}V{max(reached)}"/>'
    )
    yield from (f'<circle class="fill-{hue}" cx="{x}" cy="{at}" r="3"/>' for at in sorted(reached))


if __name__ == "__main__":
    main()
