"""A step's output folder and its manifest: whether the work is done, whether its files are intact, and the result.

A folder holds the step's files; `manifest.json` once the step has succeeded; and, while it runs, a folder `state/` from
which a killed run resumes. A process locks the folder with `promptgen.files.folder_lock` before it works in it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptgen.errors import DataError
from promptgen.files import LOCK_NAME, atomic_write, read_json, sha256_of, storage_error, write_json

MANIFEST_NAME = "manifest.json"
STATE_NAME = "state"
STATE_FINGERPRINT_NAME = "fingerprint"


class StepFolder:
    """The output folder of one step.

    Args:
        path: the folder; it need not exist.
        fingerprint: what the step's result depends on, from `fingerprint`.
    """

    def __init__(self, path: Path | str, fingerprint: str) -> None:
        self.path = Path(path)
        self.fingerprint = fingerprint

    @property
    def state(self) -> Path:
        """The folder from which a killed run resumes; `begin` creates it and `finish` removes it."""
        return self.path / STATE_NAME

    def is_complete(self) -> bool:
        """Return whether the step succeeded with this fingerprint, and none of its files has changed since."""
        try:
            manifest = self.manifest()
        except DataError:
            return False
        return manifest["fingerprint"] == self.fingerprint and all(
            (self.path / name).is_file() and sha256_of(self.path / name) == expected
            for name, expected in manifest["files"].items()
        )

    def begin(self) -> None:
        """Empty the folder for a run, except for its lock and a `state/` of the same fingerprint.

        Raises:
            StorageError: something cannot be removed or written.
        """
        recorded = self.state / STATE_FINGERPRINT_NAME
        resumable = recorded.is_file() and recorded.read_text() == self.fingerprint
        keep = {LOCK_NAME, STATE_NAME} if resumable else {LOCK_NAME}
        if self.path.is_dir():
            for entry in self.path.iterdir():
                if entry.name not in keep:
                    _remove(entry)
        if not resumable:
            atomic_write(recorded, self.fingerprint)

    def finish(
        self, result: Mapping[str, Any], seconds: float, made_from: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Write the manifest of all files in the folder, then remove `state/`; return the manifest.

        Args:
            result: result of the step, as plain numbers, strings, lists and dicts.
            seconds: how long the step took.
            made_from: the parameters and inputs behind the fingerprint, so that later runs can name the differences.

        Raises:
            DataError: `result` or `made_from` is not plain.
            StorageError: the manifest cannot be written.
        """
        names = sorted(path.relative_to(self.path) for path in self.path.rglob("*") if path.is_file())
        private = {MANIFEST_NAME, LOCK_NAME, STATE_NAME}
        sums = {name.as_posix(): sha256_of(self.path / name) for name in names if name.parts[0] not in private}
        manifest = {"fingerprint": self.fingerprint, "files": sums, "result": dict(result), "seconds": seconds}
        write_json(self.path / MANIFEST_NAME, {**manifest, "made_from": dict(made_from or {})})
        if self.state.exists():
            _remove(self.state)
        return self.manifest()

    def manifest(self) -> dict[str, Any]:
        """Return the manifest: `fingerprint`, `files` (sha256 by name), `result`, `seconds` and `made_from`.

        Raises:
            DataError: there is none, or it is damaged.
        """
        path = self.path / MANIFEST_NAME
        manifest = read_json(path)
        if not isinstance(manifest, dict) or not {"fingerprint", "files", "result", "seconds"} <= manifest.keys():
            raise DataError(f"{path} is not the manifest of a step; delete it and run the step again")
        return manifest

    def result(self) -> dict[str, Any]:
        """Return the result of the step.

        Raises:
            DataError: the step has not succeeded.
        """
        result: dict[str, Any] = self.manifest()["result"]
        return result


def _remove(entry: Path) -> None:
    """Remove a file, a link or a folder; the target of a link stays."""
    try:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(entry, error) from error
