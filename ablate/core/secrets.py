"""Tokens and passwords that this process can know, and texts without them: nothing of the kind is written or shown."""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

HIDDEN = "***"
MIN_LENGTH = 8
"""Of what is hidden wherever it stands: a shorter one may be any word."""
_USERINFO = re.compile(r"(?<=://)[^/\s?#'\"]*@")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}|(?<=[Bb]earer )[^\s'\"]+|(?<=[Bb]asic )[A-Za-z0-9+/=]{8,}")
_SECRET_NAME = re.compile(r"(TOKEN|PASSWORD|PASSWD|SECRET|SECRET_KEY|API_?KEY|ACCESS_KEY)$", re.IGNORECASE)


def hidden(text: str) -> str:
    """-> the text with no `user:password@` in any URL, and stars for every token and password that is known here."""
    text = without_userinfo(text)
    for secret in sorted(set(_known()), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _TOKEN.sub(HIDDEN, text)


def is_named_so(variable: str) -> bool:
    """Whether a variable of the environment has the name of a token or a password."""
    return _SECRET_NAME.search(variable) is not None


def without_userinfo(text: str) -> str:
    return _USERINFO.sub("", text)


def _known() -> Iterator[str]:
    for name, value in os.environ.items():
        if is_named_so(name):
            yield from _long(value.strip())
        if "://" in value and "@" in value:
            yield from _long(_password(value))
    yield from _long(_in_file(_token_file()))


def _long(secret: str) -> Iterator[str]:
    if len(secret) >= MIN_LENGTH:
        yield secret


def _password(url: str) -> str:
    try:
        return urlsplit(url).password or ""
    except ValueError:
        return ""


def _token_file() -> Path:
    """Where huggingface_hub keeps the token of `hf auth login`."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_TOKEN_PATH") or Path(home) / "token")


@cache
def _in_file(path: Path) -> str:
    try:
        return path.expanduser().read_text().strip()
    except (OSError, RuntimeError, ValueError):
        return ""
