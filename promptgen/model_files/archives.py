"""One file out of an archive: by its exact name, as a stream, and nothing else of the archive touches the disk."""

from __future__ import annotations

import difflib
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from gzip import BadGzipFile
from lzma import LZMAError
from pathlib import Path
from typing import IO, TypeVar

from promptgen.errors import ChecksumError, ModelFileError
from promptgen.files import require_space
from promptgen.strict import did_you_mean

T = TypeVar("T")

LARGEST = 32 * 2**30
"""Bytes of the largest member that is taken out where nobody says how large it is."""

_CHUNK = 1 << 20
_SHOWN = 10
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, BadGzipFile, zlib.error, LZMAError, EOFError, RuntimeError)


def extract(archive: Path, member: str, target: Path, size: int | None = None) -> None:
    """Write the file called `member` in a zip or tar archive, compressed or not, to `target`.

    Args:
        archive: the archive; it may be compressed.
        member: the file's whole path in it.
        target: where to; nothing the archive says has a say in that.
        size: bytes that it must have; None accepts up to `LARGEST`.

    Raises:
        ModelFileError: the archive is none or is damaged; or it has no such file, has a link or a device in its place,
            or has it in another size.
        OSError: `target` cannot be written.
    """
    opened = _zip_member if zipfile.is_zipfile(archive) else _tar_member
    try:
        with opened(archive, member) as (source, length):
            _require_size(archive, member, length, size)
            require_space(target, length)
            with target.open("wb") as file:
                shutil.copyfileobj(source, file, _CHUNK)
    except _DAMAGED as error:
        reason = str(error).partition("\n")[0]
        raise ModelFileError(f"{archive} is no sound archive ({reason}); delete it, and fetch again") from error
    if target.stat().st_size != length:
        raise ModelFileError(f"{archive}: {member} is shorter than the {length} bytes that the archive tells")


@contextmanager
def _zip_member(archive: Path, member: str) -> Iterator[tuple[IO[bytes], int]]:
    with zipfile.ZipFile(archive) as opened:
        found = _only(archive, member, [(info.filename, info) for info in opened.infolist()])
        kind = stat.S_IFMT(found.external_attr >> 16)  # 0 where the archive was not made on Unix
        if found.is_dir() or kind not in (0, stat.S_IFREG):
            raise _no_file(archive, member)
        with opened.open(found) as source:
            yield source, found.file_size


@contextmanager
def _tar_member(archive: Path, member: str) -> Iterator[tuple[IO[bytes], int]]:
    with tarfile.open(archive) as opened:
        found = _only(archive, member, [(info.name, info) for info in opened])
        source = opened.extractfile(found) if found.isreg() else None  # for a link it would open another member
        if source is None:
            raise _no_file(archive, member)
        with source:
            yield source, found.size


def _only(archive: Path, member: str, entries: Sequence[tuple[str, T]]) -> T:
    """Return the one entry that is called `member`."""
    found = [entry for name, entry in entries if name == member]
    if not found:
        names = [name for name, _ in entries]
        known = difflib.get_close_matches(member, names) or names[:_SHOWN]
        raise ModelFileError(f"{archive} has no file {member}{did_you_mean(member, known)}")
    if len(found) > 1:
        raise ModelFileError(f"{archive} has {len(found)} files called {member}, expected one")
    return found[0]


def _no_file(archive: Path, member: str) -> ModelFileError:
    return ModelFileError(f"{archive}: {member} is a folder, a link or a device, expected a file")


def _require_size(archive: Path, member: str, length: int, size: int | None) -> None:
    if size is not None and length != size:
        raise ChecksumError(f"{archive}: {member} has {length} bytes, expected {size}")
    if length > LARGEST:
        raise ModelFileError(
            f"{archive}: {member} has {length} bytes, expected at most {LARGEST}; take another archive"
        )
