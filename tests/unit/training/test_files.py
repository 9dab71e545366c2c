"""Tensor files as the library safetensors writes them, and digests of what was written without reading it."""

import hashlib
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file
from safetensors.torch import save as save_whole
from support.bytes_read import bytes_read

from ablate.core import file_digests
from ablate.data import tokens
from ablate.store.manifest import durable_listing
from ablate.training import files

DTYPES = list(files.DTYPES)


def tensors_of(seed: int) -> dict[str, torch.Tensor]:
    """-> some of every dtype, empty ones, numbers and strange names among them."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for number, dtype in enumerate(DTYPES):
        shape = ((), (0, 3), (5,), (2, 3), (2, 1, 4))[(number + seed) % 5]
        name = ('é"/', "layer.", "a\n")[number % 3] + f"{number % 4}.{number}"
        made[name] = (torch.randn(shape, generator=generator) * 9).to(dtype)
    return made


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_file_of_tensors_is_byte_for_byte_that_of_safetensors(tmp_path, seed, metadata):
    made = tensors_of(seed)
    files.save(made, tmp_path / "a", metadata)
    assert (tmp_path / "a").read_bytes() == save_whole(made, metadata)


def test_a_file_of_rows_is_byte_for_byte_that_of_safetensors(tmp_path):
    for lengths in ([], [3, 0, 5]):
        rows = tokens.lay(tokens.TokenRow([*range(n)], [1] * n) for n in lengths)
        tokens.save(rows, tmp_path / "a")
        arrays = {"tokens": rows.tokens, "loss_mask": rows.loss_mask, "offsets": rows.offsets}
        assert (tmp_path / "a").read_bytes() == save_arrays(arrays)


def test_a_tensor_is_written_in_pieces_as_it_is_read_whatever_its_strides(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PIECE_BYTES", 100)
    made = {"t": torch.arange(6000.0).reshape(60, 100).T, "part": torch.arange(500)[7:450]}
    files.save(made, tmp_path / "a")
    again = load_file(tmp_path / "a")
    assert all(torch.equal(again[name], tensor) for name, tensor in made.items())


def test_what_was_written_here_is_not_read_again_to_be_listed(tmp_path):
    files.save({"w": torch.randn(3_000_000)}, tmp_path / "a")
    os.link(tmp_path / "a", tmp_path / "b")  # as from checkpoint to checkpoint
    listings = []
    assert bytes_read(lambda: listings.append(durable_listing(tmp_path))) < 10_000
    (listing,) = listings
    digest = hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()
    assert {name: one["sha256"] for name, one in listing.items()} == {"a": digest, "b": digest}


@pytest.mark.parametrize("change", ["other bytes", "cut", "another file"])
def test_a_file_that_was_changed_after_it_was_written_is_read_to_be_listed(tmp_path, change):
    path = tmp_path / "a"
    files.save({"w": torch.randn(300_000)}, path)
    if change == "other bytes":
        with path.open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(np.float32(1.5).tobytes())
    elif change == "cut":
        os.truncate(path, 1000)
    else:
        shutil.copyfile(path, tmp_path / "other")
        (tmp_path / "other").replace(path)
    (listed,) = durable_listing(tmp_path).values()
    assert listed["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_byte_that_the_disk_changed_is_found_by_who_reads_it(tmp_path):
    path = tmp_path / "a"
    files.save({"w": torch.randn(300_000)}, path)
    (listed,) = durable_listing(tmp_path).values()
    status, raw = path.stat(), bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # no time of a file tells of it
    assert file_digests.reread_sha256(path) != listed["sha256"]
