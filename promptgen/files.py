"""Files that are either whole or not there: temporary name, sync, `os.replace`; and locks on folders."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from promptgen.errors import DataError, StorageError

LOCK_NAME = ".lock"
TEMPORARY_SUFFIX = ".part"

_WAYS_OUT = {
    errno.ENOSPC: "no space is left: free some, or choose another disk",
    errno.EDQUOT: "the quota is used up: free some space, or choose another disk",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "permission is denied: change the folder's owner or mode, or choose another folder",
    errno.EPERM: "permission is denied: change the folder's owner or mode, or choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder: move that file away",
    errno.EEXIST: "a file is where a folder is needed: move that file away",
    errno.EISDIR: "a folder is where a file is needed: move that folder away",
}


def storage_error(path: Path, error: OSError) -> StorageError:
    """Return the one-line error, with a way out, for a failed write of `path`."""
    return StorageError(f"cannot write {path}: {_WAYS_OUT.get(error.errno or 0, str(error))}")


def require_space(path: Path, count: int) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        StorageError: less than `count` bytes are free where `path`, in an existing folder, is to be written.
    """
    free = shutil.disk_usage(path.parent).free
    if count > free:
        needed = f"{count / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free"
        raise StorageError(f"cannot write {path}: {needed}; free some, or choose another disk")


def sha256_of(path: Path | str) -> str:
    """Return the sha256 of a file as 64 lower-case hexadecimal digits; memory does not grow with the file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place when the block ends well, and is removed otherwise.

    The temporary name keeps the suffix of `path`, since some writers choose a format or append an ending by it. A
    reader sees the old file or the whole new one, also after a crash.

    Raises:
        StorageError: the folder cannot be made or the file cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:12]}{TEMPORARY_SUFFIX}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, target)
            _sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(target, error) from error


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path | str, content: bytes | str) -> None:
    """Write a whole file at once; text is written as UTF-8.

    Raises:
        StorageError: the file cannot be written; what was there before is untouched.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path | str, content: Any) -> None:
    """Write `content` as JSON with sorted keys, so that equal content makes equal bytes; NaN and infinity become null.

    Raises:
        DataError: something in `content` is not JSON.
        StorageError: the file cannot be written.
    """
    try:
        text = json.dumps(_finite(content), sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False)
    except TypeError as error:
        raise DataError(f"cannot write {path}: {error}; give plain numbers, strings, lists and dicts") from error
    atomic_write(path, text + "\n")


def _finite(content: Any) -> Any:
    """Return `content` with every NaN or infinite float replaced by None; JSON knows neither."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


def read_json(path: Path | str) -> Any:
    """Return what a JSON file holds.

    Raises:
        DataError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; run the step that writes it") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); delete it and run the step that writes it") from error


@contextmanager
def folder_lock(folder: Path | str) -> Iterator[None]:
    """Hold a folder for this process; it is released when the process ends, however it ends.

    Raises:
        StorageError: another run holds the folder, or the lock file cannot be written.
    """
    path = Path(folder) / LOCK_NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path)
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise StorageError(f"{folder} is held by another run: wait for it to end, or stop it") from error
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        yield
    finally:
        lock.release()


def fingerprint(params: Mapping[str, Any], inputs: Mapping[str, str], version: int) -> str:
    """Return the sha256, 64 hexadecimal digits, of everything a step's result depends on.

    Args:
        params: the step's parameters: numbers, strings, lists and dicts. The order of keys does not matter.
        inputs: sha256 of each input file by name.
        version: format version of the step; raise it when the code computes something else from the same inputs.
    """
    content = {"params": params, "inputs": dict(inputs), "version": version}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
