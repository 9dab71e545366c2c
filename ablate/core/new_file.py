"""A file of the user's own that is written once, to start from."""

from pathlib import Path

from ablate.core.errors import AblateError


def write_new(path: Path, text: str, other: str) -> None:
    """Raises AblateError rather than write over a file; `other` is the command with another name."""
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise AblateError(f"{path} exists already: give another name, as in `{other}`") from None
    except OSError as error:
        raise AblateError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error
