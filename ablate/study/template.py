"""A commented study to start from: what `ablate new` writes."""

from importlib.resources import files
from pathlib import Path

from ablate.core.new_file import write_new


def write_template(path: Path) -> None:
    """Writes the study that `ablate new` gives. Raises AblateError rather than write over a file."""
    text = files(__package__).joinpath("template.yaml").read_text()
    write_new(path, text, "ablate new my_study.yaml")
