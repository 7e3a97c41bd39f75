"""Read untrusted files within bounds, so that a length that a file merely claims costs no memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath, PureWindowsPath
from typing import IO

MAX_DIRECTORY = 32 << 20
"""Largest directory of a zip archive, bytes; about 300,000 members."""

MAX_MEMBER = 64 << 20
"""Largest member that is read as a whole, such as the pickle of a torch file, bytes."""

MAX_LINE = 1 << 16
"""Longest line of a pickle (a name, or a number in digits), bytes."""

MAX_RATIO = 200
"""Largest ratio of a member's size to its compressed size."""

LINK = 0o12
"""File type of a symbolic link in a member's Unix mode."""


class ArchiveError(ValueError):
    """The archive is damaged."""


class BoundedFile(io.RawIOBase):
    """A binary file whose reads never request more bytes than remain.

    Python allocates memory for the requested length before it checks how long the file is.

    Args:
        file: an open binary file.
        largest: largest number of bytes in a single read; a longer read raises `OSError`.
    """

    def __init__(self, file: IO[bytes], largest: int | None = None) -> None:
        super().__init__()
        self._file = file
        self._largest = largest
        position = file.tell()
        self.size = file.seek(0, io.SEEK_END)
        file.seek(position)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        left = max(self.size - self._file.tell(), 0)
        length = left if size is None or size < 0 else min(size, left)
        if self._largest is not None and length > self._largest:
            raise OSError(f"it asks for {length} bytes at once")
        return self._file.read(length)

    def readline(self, size: int | None = -1) -> bytes:
        return self._file.readline(MAX_LINE if size is None or size < 0 else min(size, MAX_LINE))


@contextmanager
def open_zip(file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive, with a bound on the length of its directory.

    Raises:
        ArchiveError: the file is not a zip archive or is damaged, also if this shows only inside the block.
    """
    try:
        with zipfile.ZipFile(BoundedFile(file, MAX_DIRECTORY)) as archive:
            yield archive
    except ArchiveError:
        raise
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError, OverflowError, LookupError) as error:
        raise ArchiveError(f"it is a damaged zip archive ({error})") from error


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return the content of a member, up to `MAX_MEMBER` bytes."""
    with archive.open(name) as member:
        content = member.read(MAX_MEMBER + 1)
    if len(content) > MAX_MEMBER:
        raise ArchiveError(f"its member {name} has more than {MAX_MEMBER >> 20} MB")
    return content


def path_fault(name: str) -> str | None:
    """Return why the name of an archive member is unsafe to extract, or None."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or windows.root:
        return f"its member {name!r} has an absolute path"
    if ".." in posix.parts or ".." in windows.parts:
        return f"its member {name!r} leads out of its folder"
    return None


def zip_member_fault(member: zipfile.ZipInfo) -> str | None:
    """Return why a member of a zip archive is unsafe to extract, or None."""
    if member.external_attr >> 28 == LINK:
        return f"its member {member.filename!r} is a link"
    if member.file_size > MAX_RATIO * max(member.compress_size, 1 << 10):
        return f"its member {member.filename!r} claims {member.file_size} bytes out of {member.compress_size}"
    return path_fault(member.filename)


def visible(text: str, length: int = 300) -> str:
    """Return text, cut to `length`, with control characters escaped, since they could overwrite a terminal."""
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:length])
    return shown if len(text) <= length else f"{shown}..."
