"""Extract a single file from an archive, by its exact name; nothing else of the archive is written to the disk."""

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
"""Largest size of a member that is extracted if its card states no size, bytes."""

_CHUNK = 1 << 20
_SHOWN = 10
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, BadGzipFile, zlib.error, LZMAError, EOFError, RuntimeError)


def extract(archive: Path, member: str, target: Path, size: int | None = None, top: str = "") -> None:
    """Write the file called `member` in a zip or tar archive, compressed or not, to `target`.

    Args:
        archive: path of the archive.
        member: path of the file in the archive, below `top`.
        target: path to write to; names in the archive do not affect it.
        size: expected size, bytes; None accepts any size up to `LARGEST`.
        top: folder of the archive that contains the file, with a slash; empty for the archive itself.

    Raises:
        ModelFileError: the archive is damaged, lacks the file, has it twice or larger than `LARGEST`, or has a folder,
            a link or a device under its name.
        ChecksumError: the file does not have the expected size.
        StorageError: the disk has no room for the file.
        OSError: `target` cannot be written.
    """
    opened = _zip_member if zipfile.is_zipfile(archive) else _tar_member
    try:
        with opened(archive, member, top) as (source, length):
            if size is not None and length != size:
                raise ChecksumError(f"{archive}: {member} has {length} bytes, expected {size}")
            if length > LARGEST:
                raise ModelFileError(
                    f"{archive}: {member} has {length} bytes, expected at most {LARGEST}; use another archive"
                )
            require_space(target, length)
            with target.open("wb") as file:
                shutil.copyfileobj(source, file, _CHUNK)
    except _DAMAGED as error:
        reason = str(error).partition("\n")[0]
        raise ModelFileError(f"{archive} is not a sound archive ({reason}); delete it, and fetch again") from error
    if target.stat().st_size != length:
        raise ModelFileError(f"{archive}: {member} is shorter than the stated {length} bytes; fetch it again")


@contextmanager
def _zip_member(archive: Path, member: str, top: str) -> Iterator[tuple[IO[bytes], int]]:
    with zipfile.ZipFile(archive) as opened:
        info = _only(archive, member, [(info.filename, info) for info in opened.infolist()], top)
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 if the archive was not made on Unix
        if info.is_dir() or kind not in (0, stat.S_IFREG):
            raise _no_file(archive, member)
        with opened.open(info) as source:
            yield source, info.file_size


@contextmanager
def _tar_member(archive: Path, member: str, top: str) -> Iterator[tuple[IO[bytes], int]]:
    with tarfile.open(archive) as opened:
        info = _only(archive, member, [(info.name, info) for info in opened], top)
        source = opened.extractfile(info) if info.isreg() else None  # a link would open another member
        if source is None:
            raise _no_file(archive, member)
        with source:
            yield source, info.size


def _only(archive: Path, member: str, entries: Sequence[tuple[str, T]], top: str) -> T:
    """Return the only entry called `member` below `top`."""
    matches = [entry for name, entry in entries if name == top + member]
    if not matches:
        names = [name.removeprefix(top) for name, _ in entries if name.startswith(top)]
        similar = difflib.get_close_matches(member, names) or names[:_SHOWN]
        raise ModelFileError(f"{archive} has no file {member}{did_you_mean(member, similar)}")
    if len(matches) > 1:
        raise ModelFileError(f"{archive} has {len(matches)} files called {member}, expected one")
    return matches[0]


def _no_file(archive: Path, member: str) -> ModelFileError:
    return ModelFileError(f"{archive}: {member} is a folder, a link or a device, expected a file")
