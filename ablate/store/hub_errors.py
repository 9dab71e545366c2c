"""What the hub and its libraries raise, as what a reader can do about it."""

import errno
from typing import Any

from ablate.core.errors import StageError, without_secrets
from ablate.core.hub import Repo, endpoint

_TRANSPORTS = {"httpx", "httpx2", "httpcore", "requests", "urllib3"}
"""Libraries whose errors speak of the connection; as are RuntimeError (hf_xet) and OSError without a number."""


def explain_hub_error(error: BaseException, repo: Repo) -> StageError:
    """What a library raised about a repository -> what a reader can do about it.

    The failure class is `network` for what may pass, `nospace` for a full disk, `denied` or `missing` for what stays
    until somebody acts.
    """
    from huggingface_hub import errors

    match error:
        case StageError():
            return error
        case errors.GatedRepoError() | errors.DisabledRepoError():  # a gated repository is also "not found": first
            return _denied(repo)
        case errors.RepositoryNotFoundError():
            return _missing(f"{endpoint()} has no {_bare(repo)} that {_who()} can see: check the spelling")
        case errors.RevisionNotFoundError():
            return _missing(f"{_bare(repo)} has no revision {repo.revision!r}: {repo.url} lists those it has")
        case errors.OfflineModeIsEnabled():
            return offline(repo)
        case errors.HFValidationError():
            return _missing(f"{repo.id!r} is neither a hub id (owner/name) nor a folder that exists")
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            return _denied(repo)
        case errors.HfHubHTTPError() if 400 <= error.response.status_code < 500 and not _may_pass(error):
            return _missing(f"{endpoint()} refuses to tell of {repo}: {in_short(error)}")
        case OSError() if error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
            failure = "nospace" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "error"
            return StageError(f"{repo} cannot be stored: {without_secrets(str(error))}", failure)
    if isinstance(error, OSError | RuntimeError) or type(error).__module__.partition(".")[0] in _TRANSPORTS:
        return StageError(f"{endpoint()} does not answer for {repo} ({in_short(error)})", "network")
    return StageError(f"{repo}: {in_short(error)}")


def _may_pass(error: Any) -> bool:
    return error.response.status_code in (408, 429)  # too slow, too often


def offline(repo: Repo) -> StageError:
    """What to tell where a repository lacks and the hub must not be asked."""
    return _missing(
        f"{repo} is not whole on this machine, and HF_HUB_OFFLINE forbids to ask the hub: run once without it"
    )


def _missing(message: str) -> StageError:
    return StageError(message, "missing")


def _denied(repo: Repo) -> StageError:
    return StageError(
        f"{_bare(repo)} is gated, and {_who()} has no access to it: ask for access at {repo.url}, then `hf auth login`,"
        " or set HF_TOKEN to a token of that account",
        "denied",
    )


def _bare(repo: Repo) -> str:
    return str(repo._replace(revision=None))


def _who() -> str:
    from huggingface_hub import get_token

    return "the token in use" if get_token() else "a visitor without a token"


def in_short(error: BaseException) -> str:
    first = without_secrets(str(error)).strip().splitlines()[:1]
    return ": ".join([type(error).__name__, *first])[:300]
