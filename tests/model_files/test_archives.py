"""One file out of zip and tar archives, and what archives try to do instead."""

from __future__ import annotations

import io
import shutil
import stat
import struct
import tarfile
import zipfile

import pytest

from promptgen.errors import ChecksumError, ModelFileError, StorageError
from promptgen.model_files import archives
from promptgen.model_files.archives import extract

CONTENT = bytes(range(256)) * 400
MEMBER = "celeba/Male/best.pth"


def zipped(path, entries, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
    return path


def tarred(path, entries, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for entry, content in entries:
            info = entry if isinstance(entry, tarfile.TarInfo) else tarfile.TarInfo(entry)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def link(kind, name=MEMBER, target="/etc/passwd"):
    if kind == "zip":
        info = zipfile.ZipInfo(name)
        info.create_system = 3
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        return info
    info = tarfile.TarInfo(name)
    info.type, info.linkname = (tarfile.LNKTYPE if kind == "hard" else tarfile.SYMTYPE), target
    return info


@pytest.mark.parametrize("make", [zipped, tarred, lambda path, entries: tarred(path, entries, "w")])
def test_a_file_comes_out_alone_and_whole(tmp_path, make):
    others = [("celeba/readme", b"hello"), ("celeba/Female/best.pth", b"other")]
    archive = make(tmp_path / "archive", [*others, (MEMBER, CONTENT)])
    extract(archive, MEMBER, tmp_path / "out", len(CONTENT))
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "out"]


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_missing_file_is_named_with_what_is_close(tmp_path, make):
    archive = make(tmp_path / "archive", [("celeba/Mall/best.pth", b"x"), ("readme", b"x")])
    with pytest.raises(ModelFileError, match=f"archive has no file {MEMBER}; did you mean celeba/Mall/best.pth"):
        extract(archive, MEMBER, tmp_path / "out")


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", ["../celeba/Male/best.pth", "/celeba/Male/best.pth", "./celeba/Male/best.pth"])
def test_only_the_exact_name_counts(tmp_path, make, name):
    (tmp_path / "inner").mkdir()
    archive = make(tmp_path / "inner" / "archive", [(name, CONTENT)])
    with pytest.raises(ModelFileError, match="has no file"):
        extract(archive, MEMBER, tmp_path / "inner" / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["inner", "archive"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [zipped, tarred])
def test_two_files_of_the_name_are_refused(tmp_path, make):
    archive = make(tmp_path / "archive", [(MEMBER, CONTENT), (MEMBER, b"other")])
    with pytest.raises(ModelFileError, match=f"has 2 files called {MEMBER}, expected one"):
        extract(archive, MEMBER, tmp_path / "out")


def device():
    info = tarfile.TarInfo(MEMBER)
    info.type = tarfile.CHRTYPE
    return info


def folder():
    info = tarfile.TarInfo(MEMBER)
    info.type = tarfile.DIRTYPE
    return info


@pytest.mark.parametrize(
    ("make", "entry"),
    [(zipped, link("zip")), (tarred, link("hard")), (tarred, link("symbolic")), (tarred, device()), (tarred, folder())],
)
def test_links_devices_and_folders_are_refused(tmp_path, make, entry):
    archive = make(tmp_path / "archive", [(entry, b"/etc/passwd" if make is zipped else b"")])
    with pytest.raises(ModelFileError, match=f"{MEMBER} is a folder, a link or a device, expected a file"):
        extract(archive, MEMBER, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [zipped, tarred])
def test_another_size_is_refused(tmp_path, make):
    archive = make(tmp_path / "archive", [(MEMBER, CONTENT)])
    with pytest.raises(ChecksumError, match=f"{MEMBER} has {len(CONTENT)} bytes, expected 7"):
        extract(archive, MEMBER, tmp_path / "out", 7)


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_bomb_is_not_lit(tmp_path, make, monkeypatch):
    archive = make(tmp_path / "archive", [(MEMBER, bytes(10_000_000))])
    assert archive.stat().st_size < 20_000
    monkeypatch.setattr(archives, "LARGEST", 1_000_000)
    with pytest.raises(ModelFileError, match="has 10000000 bytes, expected at most 1000000"):
        extract(archive, MEMBER, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bomb_that_lies_about_its_size_goes_off_no_further_than_that(tmp_path):
    archive = zipped(tmp_path / "archive", [(MEMBER, bytes(10_000_000))])
    size = struct.pack("<L", 10_000_000)
    archive.write_bytes(archive.read_bytes().replace(size, struct.pack("<L", 1000)))
    with pytest.raises(ModelFileError, match="is not a sound archive"):
        extract(archive, MEMBER, tmp_path / "out")
    assert (tmp_path / "out").stat().st_size <= 1000


def test_a_disk_without_room_is_told_before(tmp_path, monkeypatch):
    archive = zipped(tmp_path / "archive", [(MEMBER, CONTENT)])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(StorageError, match=r"0.1 MB are needed, 0.0 MB are free"):
        extract(archive, MEMBER, tmp_path / "out")


def damaged_zip(path):
    content = bytearray(zipped(path, [(MEMBER, CONTENT)], zipfile.ZIP_STORED).read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def broken_tar(path):
    tarred(path, [(MEMBER, bytes(reversed(CONTENT)) * 9)], "w:gz")
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(CONTENT), damaged_zip, broken_tar])
def test_a_damaged_archive_is_named_with_the_way_out(tmp_path, spoil):
    spoil(tmp_path / "archive")
    with pytest.raises(ModelFileError, match=r"archive is not a sound archive \(.*\); delete it, and fetch again"):
        extract(tmp_path / "archive", MEMBER, tmp_path / "out")
