"""Tensors and storages that are not what they claim, and what hides in them, are refused."""

import io
import pickle
import struct
import warnings

import pytest
import torch

from tests.loading.restricted.classes import Box


def storage(numbers=4, claimed=None, dtype=torch.float32):
    """The bytes of a storage, which may claim another number of numbers than it has."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.save(torch.zeros(numbers, dtype=dtype).storage(), buffer, _use_new_zipfile_serialization=False)
    content = buffer.getvalue()
    if claimed is not None:
        size = b"K" + bytes([numbers]) + b"N"
        assert content.count(size) == 1
        content = content.replace(size, b"\x8a\x07" + claimed.to_bytes(7, "little") + b"N")
    return content


def stored(content):
    """Steps that leave the storage with these bytes on the stack."""
    return b"ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(content)) + content + b"\x85R"


def tensor(content=None, offset=0, size=(4,), stride=(1,)):
    """A pickle of a tensor on a storage with these bytes."""
    view = b"".join(pickle.dumps(part, 3)[2:-1].replace(b"q\x00", b"") for part in (offset, size, stride))
    start = b"\x80\x03ctorch._utils\n_rebuild_tensor_v2\n("
    return start + stored(storage() if content is None else content) + view + b"\x89)tR."


def test_the_tensor_of_these_tests_is_sound(read):
    torch.testing.assert_close(read(tensor()), torch.zeros(4), rtol=0, atol=0)


@pytest.mark.parametrize(
    "shape",
    [
        {"size": (5,)},
        {"offset": 1},
        {"offset": 5, "size": (0,)},
        {"offset": -1},
        {"size": (-1,)},
        {"stride": (-1,)},
        {"stride": (2,)},
        {"size": (4, 4), "stride": (0, 1)},
        {"size": (2**40,), "stride": (0,)},
        {"size": (2**62, 2**62), "stride": (1, 1)},
        {"size": (2**31, 2**31, 0), "stride": (2**62, 1, 1)},
        {"size": (1, 1), "stride": (1,)},
        {"size": (1,) * 9, "stride": (1,) * 9},
        {"size": (True,)},
        {"size": (4.0,)},
        {"size": "four"},
        {"offset": None},
    ],
)
def test_impossible_tensors(refused, shape):
    assert "it has a tensor" in refused(tensor(**shape))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nothing",
        pickle.dumps(Box(1), 2),
        storage()[:60],
        storage()[:-1],
        storage(4, claimed=5),
        storage(4, claimed=2**50),
        storage(dtype=torch.complex64),
        storage()[:20] + b"\x00" * 400,
    ],
)
def test_storages_that_are_not(refused, content):
    refused(tensor(content))


def test_a_storage_in_a_zip_container(refused):
    buffer = io.BytesIO()
    torch.save(torch.zeros(4), buffer)
    assert "container of another kind" in refused(tensor(buffer.getvalue()))


class Trap:
    """Would leave a file behind if it were ever run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_inside_a_storage_is_not_run(tmp_path, refused):
    buffer = io.BytesIO()
    torch.save(Trap(tmp_path / "ran"), buffer, _use_new_zipfile_serialization=False)
    refused(tensor(buffer.getvalue()))
    refused(pickle.dumps([Trap(tmp_path / "ran")], 3))
    assert not (tmp_path / "ran").exists()


def test_a_file_cannot_change_the_reader(read, refused):
    """Attributes given to what stands for a class or function would outlive the file, if they were kept."""
    state = pickle.dumps({"name": "posix.system", "__call__": 1}, 3)[2:-1]
    for name in (b"cbuiltins\nint\n", b"ctorch._utils\n_rebuild_tensor_v2\n"):
        assert "it gives attributes to a Reference" in refused(b"\x80\x03" + name + state + b"b.")
        assert "it gives attributes to a Reference" in refused(b"\x80\x03" + name + b"N" + state + b"\x86b.")
    read(tensor())


def test_bytes_are_made_into_numbers_once(refused):
    content = storage(1000)
    once = b"ctorch.storage\n_load_from_bytes\nq\x00B" + struct.pack("<I", len(content)) + content + b"\x85q\x01R"
    assert "makes more numbers than it holds" in refused(b"\x80\x03" + once + 3 * b"h\x00h\x01R" + b".")
