"""What a fetch stage brought is found: the embedded study's files wherever the package lies now, the rest as it was."""

from pathlib import Path

import pytest

from ablate.core.package import FOLDER
from ablate.store.fetched import fetched_path

ASSETS = FOLDER / "example" / "assets"


@pytest.mark.parametrize("folder", ["example", "world"])
@pytest.mark.parametrize("name", ["student", "data/train.jsonl"])
def test_a_file_of_the_package_that_is_gone_is_found_in_this_package(tmp_path, folder, name):
    gone = tmp_path / "site-packages" / "ablate" / folder / "assets" / name
    assert fetched_path({"path": str(gone)}) == ASSETS / name


def test_a_file_of_the_package_that_is_still_there_is_taken(tmp_path):
    there = tmp_path / "ablate" / "world" / "assets" / "student"
    there.mkdir(parents=True)
    assert fetched_path({"path": str(there)}) == there


@pytest.mark.parametrize(
    "path", ["/gone/ablate/assets/student", "/gone/example/assets/student", "/gone/student", "student"]
)
def test_any_other_path_is_as_it_is(path):
    assert fetched_path({"path": path}) == Path(path)
