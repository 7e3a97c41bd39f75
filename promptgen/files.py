"""Atomic writes (temporary name, sync, `os.replace`), so that files are complete or absent; and locks on folders."""

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

_REMEDIES = {
    errno.ENOSPC: "no space is left: free some, or choose another disk",
    errno.EDQUOT: "the quota is used up: free some space, or choose another disk",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "permission is denied: change the folder's owner or mode, or choose another folder",
    errno.EPERM: "permission is denied: change the folder's owner or mode, or choose another folder",
    errno.ENOTDIR: "part of the path is a file, not a folder: move that file away",
    errno.EEXIST: "a file is in the place of a folder: move that file away",
    errno.EISDIR: "a folder is in the place of the file: move that folder away",
}


def storage_error(path: Path, error: OSError) -> StorageError:
    """Return the error for a failed write of `path`, with a remedy."""
    return StorageError(f"cannot write {path}: {_REMEDIES.get(error.errno or 0, str(error))}")


def require_space(path: Path, count: int) -> None:
    """Check, before writing, that the disk has room for a file.

    Raises:
        StorageError: fewer than `count` bytes are free.
    """
    free = shutil.disk_usage(path.parent).free
    if count > free:
        needed = f"{count / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free"
        raise StorageError(f"cannot write {path}: {needed}; free some, or choose another disk")


def sha256_of(path: Path | str) -> str:
    """Return the sha256 of a file as 64 lower-case hexadecimal digits, reading it in chunks."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block succeeds and is removed when it fails.

    The temporary name keeps the suffix of `path`, because some writers choose the format by it. Even after a crash, a
    reader sees either the old file or the complete new one.

    Raises:
        StorageError: the folder cannot be created or the file cannot be written.
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
    """Wait until a file, or the entries of a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path | str, content: bytes | str) -> None:
    """Write a file atomically; text is encoded as UTF-8.

    Raises:
        StorageError: the file cannot be written; an existing file is then unchanged.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path | str, content: Any) -> None:
    """Write `content` as JSON with sorted keys, so equal content gives identical bytes; NaN and infinity become null.

    Raises:
        DataError: `content` has a value that JSON cannot represent.
        StorageError: the file cannot be written.
    """
    try:
        text = json.dumps(_finite(content), sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False)
    except TypeError as error:
        raise DataError(f"cannot write {path}: {error}; give plain numbers, strings, lists and dicts") from error
    atomic_write(path, text + "\n")


def _finite(content: Any) -> Any:
    """Return `content` with NaN and infinity, which JSON lacks, replaced by None."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


def read_json(path: Path | str) -> Any:
    """Return the content of a JSON file.

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
    """Lock a folder for this process. The lock is released when the process ends, even if it is killed.

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
    """Return the sha256, 64 hexadecimal digits, of everything that a step's result depends on.

    Args:
        params: the step's parameters: numbers, strings, lists and dicts. The order of keys does not matter.
        inputs: sha256 of each input file by name.
        version: version of the step; increase it when the code computes a different result from the same inputs.

    Example:
        >>> first = fingerprint({"steps": 10, "batch": 4}, {"chain": "ab12"}, version=1)
        >>> first == fingerprint({"batch": 4, "steps": 10}, {"chain": "ab12"}, version=1)
        True
        >>> first == fingerprint({"steps": 10, "batch": 4}, {"chain": "ab12"}, version=2)
        False
    """
    content = {"params": params, "inputs": dict(inputs), "version": version}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
