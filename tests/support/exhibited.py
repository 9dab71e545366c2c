"""Made-up studies at every point of their life, and what the contracts of exhibits and overviews ask of a piece."""

from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from ablate.report.exhibits.base import Piece
from ablate.results.collect import Results, collect
from support.golden import half_done
from support.report_study import bench
from support.written_answers import commit_written

EVIL = "<script>alert(1)</script> <img src=x onerror=alert(1)> | \"'> </table></svg></section> `code` 🎉"
VOID = frozenset({"br", "hr", "img", "input", "meta", "link", "col", "wbr"})
PUBLISHED = "source: a paper\ncolumns: [hellaswag/acc]\nllama: {student/baseline: [0.4517]}\n"
HELD_OUT = MappingProxyType({"class_loss": 1.25, "forward_kl": 0.5, "reverse_kl": 0.4, "tokens": 90.0})


def finished(root: Path) -> Results:
    """Has something for every exhibit: an axis, two crossed ones, seeds, held-out losses, finer metrics, choices."""
    published = root / "published.yaml"
    root.mkdir(parents=True, exist_ok=True)
    published.write_text(PUBLISHED)
    tables = {
        "rates": {"grid": {"distill.lr": [1e-3, 3e-4, 1e-5]}},
        "written": {"grid": {"distill.answers": ["student", "mixed"]}},
        "crossed": {"grid": {"distill.lr": [1e-3, 3e-4], "distill.kd_ratio": [0.3, 0.7]}},
        "cut": {"grid": {"distill.teacher_top_k": [None, 8]}},
    }
    study = bench(root, ablations=tables, seeds=[0, 1], published=str(published))
    for cell in study.plan().cells:
        if cell.row.ablation == "written" and cell.row.model == "distill":
            commit_written(study, cell)
        if cell.trained and not study.store.done(cell.trained):
            study.commit_training(cell, held_out=dict(HELD_OUT))
        if not study.store.done(cell.evaluate):
            study.commit_evaluation(cell, has_finer=True, has_texts=cell.row.ablation == "written", has_choices=True)
    return collect(study.plan())


def hostile(root: Path) -> Results:
    """Every text that a study or a failure can bring is markup; one cell failed."""
    pair = {
        "label": EVIL,
        "teacher": {"model": "=cmd|<b>", "label": EVIL},
        "student": {"model": "meta/1B", "label": EVIL},
    }
    table = {"title": EVIL, "question": EVIL, "grid": {"distill.lr": [1e-3, 3e-4, 1e-5]}}
    study = bench(root, title=EVIL, pairs={"llama": pair}, ablations={"one": table})
    *cells, last = study.plan().cells
    study.commit(*cells)
    study.fail(last.evaluate, "error", f"{EVIL}\n</td></table></section>")
    return collect(study.plan())


STUDIES = MappingProxyType(
    {
        "finished": finished,
        "half done": lambda root: collect(half_done(root).plan()),
        "never begun": lambda root: collect(bench(root).plan()),
        "hostile": hostile,
    }
)


def problems_of(piece: Piece) -> list[str]:
    """-> what is wrong with a piece: markup that does not close or was let in, files outside the report's folder."""
    html = _Html()
    html.feed(piece.html)
    html.close()
    outside = [path for path in piece.files if not _is_below(path)]
    return [
        *html.problems,
        *(f"<{tag}> is not closed" for tag in html.open),
        *(f"{path} is outside" for path in outside),
    ]


def _is_below(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return parts[0] in ("tables", "figures") and len(parts) == 2 and ".." not in parts


class _Html(HTMLParser):
    """Notes every tag that closes nothing or is of a hostile label."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.problems: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        handlers = [name for name, _ in attrs if name.startswith("on")]
        if tag in ("script", "iframe") or handlers or (tag == "img" and ("src", "x") in attrs):
            self.problems.append(f"a label became <{tag}>")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()
