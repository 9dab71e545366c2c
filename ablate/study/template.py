"""A commented study to start from: what `ablate new` writes."""

from importlib.resources import files
from pathlib import Path

from ablate.core.errors import AblateError


def write_template(path: Path) -> None:
    """Writes the study that `ablate new` gives. Raises AblateError rather than write over a file."""
    text = files(__package__).joinpath("template.yaml").read_text()
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise AblateError(f"{path} exists already: give another name, as in `ablate new my_study.yaml`") from None
    except OSError as error:
        raise AblateError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error
