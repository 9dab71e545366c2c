"""Every file, module, class and function that the guides name is there; looked up in the source, without imports."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from support.paths import PACKAGE, ROOT

GUIDES = [
    path for name in ("CONTRIBUTING", "docs/architecture", "docs/extending") if (path := ROOT / f"{name}.md").is_file()
]
HISTORY = ("decisions.md", "performance.md", "CHANGELOG.md")
"""What they name was there once."""
PAGES = [path for folder in (ROOT, ROOT / "docs") for path in sorted(folder.glob("*.md")) if path.name not in HISTORY]
FOLDERS = ("ablate", "tests", "docs", "studies", "tools", "benchmarks")
GROUPS = ("ablate.losses", "ablate.exhibits", "ablate.overviews", "ablate.executors", "ablate.trackers")
"""Of entry points."""
ENDINGS = ("yaml", "yml", "json", "jsonl", "md", "html", "csv", "txt", "svg", "toml", "py", "safetensors")

Names = dict[str, set[str]]


def _members(body: list[ast.stmt]) -> Iterator[str]:
    """-> what a module or a class defines."""
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def _tree() -> tuple[Names, Names]:
    """-> module or package -> what it defines, class -> its members; of one name there may be several."""
    modules, classes = defaultdict(set), defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        body = ast.parse(path.read_text()).body
        name = path.parent.name if path.name == "__init__.py" else path.stem
        modules[name] |= {*_members(body), *(alias.name for node in body for alias in _handed_on(node))}
        modules[path.parent.name].add(name)
        for node in body:
            if isinstance(node, ast.ClassDef):
                classes[node.name] |= {*_members(node.body)}
    return modules, classes


def _handed_on(node: ast.stmt) -> list[ast.alias]:
    return node.names if isinstance(node, ast.ImportFrom) else []


MODULES, CLASSES = _tree()
NAMES = set().union(*MODULES.values(), MODULES, CLASSES, *CLASSES.values())


def missing(text: str) -> list[str]:
    """-> what a text names in backticks and the tree does not have."""
    return [word for word in _words(text) if not (_is_there(word) and _is_known(word))]


def _words(text: str) -> list[str]:
    return [word.rstrip(",.;:") for quoted in re.findall(r"`([^`\n]+)`", text) for word in quoted.split()]


def _is_there(word: str) -> bool:
    """Whether it is no path into the checkout, or one of something."""
    return "/" not in word or word.split("/")[0] not in FOLDERS or (ROOT / word).exists()


def _is_known(word: str) -> bool:
    """Whether it is no name of ours, or one that is defined."""
    if word in (*GROUPS, "WHERE", "STUDY", "NAME"):
        return True
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", word):
        return word.rsplit(".", 1)[1] in ENDINGS or _is_defined(word.split("."))
    return not _is_a_name_of_ours(word) or word in NAMES


def _is_a_name_of_ours(word: str) -> bool:
    """CamelCase, or KINDS."""
    return bool(re.fullmatch(r"[A-Z][a-z]\w*|[A-Z_]{4,}", word))


def _is_defined(parts: list[str]) -> bool:
    return all(other in MODULES.get(one, ()) or other in CLASSES.get(one, ()) for one, other in pairwise(parts))


def _prose(path: Path) -> str:
    """-> a page without its code, and without the names of the files that the code goes into."""
    return re.sub(r"(`[\w/.]+`:\n\n)?^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def _name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", GUIDES, ids=_name)
def test_what_a_guide_names_is_there(path):
    assert missing(_prose(path)) == []


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_every_path_that_a_page_names_is_there(path):
    assert [word for word in _words(_prose(path)) if not _is_there(word)] == []


@pytest.mark.parametrize(
    "word",
    [
        "ablate/no_such_module.py",
        "tests/unit/test_nothing.py",
        "plan.make_nothing",
        "no_such_module.make_plan",
        "Stage.lock",
        "ablate.planning.plan.nothing",
        "NoSuchClass",
        "KINDNESS",
    ],
)
def test_what_is_not_there_is_found(word):
    assert missing(f"It is `{word}`.") == [word]


@pytest.mark.parametrize("word", ["ablate/cli/app.py", "app.main", "Stage.key", "ablate.run", "Stage", "KINDS"])
def test_what_is_there_is_not(word):
    assert missing(f"It is `{word}`.") == []


LINK = re.compile(r"\]\(([^)#]+?)(?:#[^)]*)?\)")


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_every_link_between_pages_leads_somewhere(path):
    links = [link for link in LINK.findall(_prose(path)) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []
