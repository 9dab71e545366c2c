"""What a sentence must keep to be understood when it is read aloud once."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser

MOST_WORDS = 30
BANNED = {
    r"\b(?:is|are|was|be) told\b": "say it in the active voice",
    r"\btold\b": "the data tell, a row shows",
    r"\bno difference\b": "p > 0.05 shows no absence",
    r"\bno effect\b": "p > 0.05 shows no absence",
    r"\bby a straight line\b": "a trend, a line",
    r"\bsuggestive only\b": "one seed is said once",
    r"\bsignifican": "clear, with its interval",
    r"\bwould not have been seen\b": "could not be seen",
    r"\bhas failed to\b": "failed",
}
INTERVAL = re.compile(r"\([^()\d]*[\d.,]+(?: \w+)? to [^()]*\d[^()]*\)|between \S+ and \S*\d\S*")
SIZE = re.compile(r"(?<![\w.])\d[\d.]* points?\b")
ENDS = re.compile(r"(?<=[.!?])\s+(?=[A-Z\d\N{MINUS SIGN}±])")
CLAUSES = re.compile(r"; |: |, nor |\. ")


def faults(sentence: str) -> list[str]:
    """-> what is wrong with it: too long, a phrase that nobody says, more than one number beside its interval."""
    wrong = [f"{pattern}: {why}" for pattern, why in BANNED.items() if re.search(pattern, sentence, re.IGNORECASE)]
    if (num := num_words(sentence)) > MOST_WORDS:
        wrong.append(f"{num} words")
    return wrong + [f"two numbers: {clause}" for clause in CLAUSES.split(sentence) if _is_crowded(clause)]


def num_words(sentence: str) -> int:
    """-> without what stands in brackets, which a reader skips."""
    return len(re.findall(r"[^\W_][\w.'/-]*", re.sub(r"\([^()]*\)", "", sentence)))


def sentences(text: str) -> list[str]:
    return [one for one in ENDS.split(" ".join(text.split())) if one]


def _is_crowded(clause: str) -> bool:
    """A size beside its interval is one number; so is an interval alone."""
    without = INTERVAL.sub("", clause)
    return len(INTERVAL.findall(clause)) > 1 or len(SIZE.findall(without)) > 1


class Prose(HTMLParser):
    """The texts of a page that are sentences: paragraphs, items of lists, captions, summaries; no table, no picture."""

    TAGS = frozenset({"p", "li", "figcaption", "caption", "summary", "h1", "h2", "h3"})
    SKIPPED = frozenset({"svg", "script", "style", "table", "code", "template", "pre", "blockquote", "dl"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("br", "meta", "link", "input", "img", "hr", "col", "path", "use"):
            self.open.append(tag)
        if tag in self.TAGS:
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.texts and self.TAGS & set(self.open) and not self.SKIPPED & set(self.open):
            self.texts[-1] += data

    @property
    def sentences(self) -> Iterator[str]:
        yield from (sentence for text in self.texts for sentence in sentences(text))
