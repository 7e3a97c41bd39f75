"""Whole files or none, one-line storage errors, and locks between processes."""

import errno
import hashlib
import json
import os
import subprocess
import sys

import pytest

from promptgen import files
from promptgen.errors import DataError, StorageError


def test_sha256_is_that_of_hashlib(tmp_path):
    content = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(content)
    assert files.sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_atomic_write_makes_folders_and_leaves_nothing_else(tmp_path):
    files.atomic_write(tmp_path / "deep" / "er" / "a.txt", "grüß")
    files.atomic_write(tmp_path / "deep" / "er" / "a.txt", b"second")
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["a.txt"]
    assert (tmp_path / "deep" / "er" / "a.txt").read_bytes() == b"second"


def write_half_and_stop(path):
    path.write_text("half")
    raise ZeroDivisionError


def test_a_failing_block_keeps_the_old_file_and_removes_the_temporary_one(tmp_path):
    target = tmp_path / "a.txt"
    files.atomic_write(target, "old")
    with pytest.raises(ZeroDivisionError), files.atomic_path(target) as temporary:
        write_half_and_stop(temporary)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_name_keeps_the_suffix_and_the_folder(tmp_path):
    with files.atomic_path(tmp_path / "grid.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"x")


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "no space"), (errno.EROFS, "read-only"), (errno.EACCES, "permission"), (errno.EIO, "I/O error")],
)
def test_each_os_error_has_one_line_with_a_way_out(tmp_path, code, words):
    with pytest.raises(StorageError, match=words) as caught, files.atomic_path(tmp_path / "a"):
        raise OSError(code, os.strerror(code).replace("Input/output", "I/O"))
    assert "\n" not in str(caught.value)
    assert "a" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "a").write_text("file")
    with pytest.raises(StorageError, match="move that file away"):
        files.atomic_write(tmp_path / "a" / "b", "x")


@pytest.mark.faults
def test_a_full_disk_is_a_storage_error():
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full, which Linux has")
    with pytest.raises(OSError, match="No space") as caught, open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")
    assert "no space is left" in str(files.storage_error("x", caught.value))


def test_json_is_sorted_stable_and_has_no_nan(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"b": float("nan"), "a": (1, 2.5, float("inf")), "c": {"é": None}})
    expected = '{\n  "a": [\n    1,\n    2.5,\n    null\n  ],\n  "b": null,\n  "c": {\n    "é": null\n  }\n}\n'
    assert path.read_text() == expected
    assert files.read_json(path) == {"a": [1, 2.5, None], "b": None, "c": {"é": None}}


def test_json_refuses_what_is_not_json(tmp_path):
    with pytest.raises(DataError, match=r"a\.json"):
        files.write_json(tmp_path / "a.json", {"a": {1, 2}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, "{", "\xff"])
def test_reading_json_that_is_not_there_or_damaged(tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=r"a\.json"):
        files.read_json(tmp_path / "a.json")


LOCKER = """
import sys
from promptgen.files import folder_lock
from promptgen.errors import StorageError
try:
    with folder_lock(sys.argv[1]):
        print("held", flush=True)
        sys.stdin.read()
except StorageError as error:
    print(error, flush=True)
"""


def start_locker(folder):
    return subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_lock_keeps_other_processes_out_and_dies_with_its_holder(tmp_path):
    folder = tmp_path / "new"
    with start_locker(folder) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match="held by another run"), files.folder_lock(folder):
            pass
        holder.kill()
    with files.folder_lock(folder), start_locker(folder) as late:
        assert "held by another run" in late.stdout.readline()
    with files.folder_lock(folder):
        pass


def test_json_written_is_json(tmp_path):
    files.write_json(tmp_path / "a.json", {"x": 0.1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 0.1}
