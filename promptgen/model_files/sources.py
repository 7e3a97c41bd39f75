"""Sources of model files: this package, this machine, the network or the hub; the file itself or an archive member."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import promptgen
from promptgen.errors import ModelFileError
from promptgen.files import folder_lock, require_space
from promptgen.model_files.addresses import hub_address, shown
from promptgen.model_files.archives import extract
from promptgen.model_files.downloads import Patience, download

PARTIAL = ".partial"
"""Folder of unfinished downloads, in the models folder."""

ARCHIVES = ".archives"
"""Folder of downloaded archives, in the models folder. They are kept for their other files, and may be deleted while
nothing is being fetched."""


@dataclass(frozen=True)
class Source:
    """One URL of a card.

    Attributes:
        url: the URL.
        member: path of the file in the archive at the URL; None if the URL gives the file itself.
        size: size of the file, bytes; None if unknown.
        models: folder of the weight files; relative paths start at its parent folder.
    """

    url: str
    member: str | None
    size: int | None
    models: Path

    def bring(self, title: str, target: Path, patience: Patience) -> None:
        """Write the file to `target`; `title`, ``NAME/FILE``, is its name in logs.

        Raises:
            ModelFileError: the file does not exist or cannot be downloaded.
            ChecksumError: the file does not have the expected size.
            StorageError: the file cannot be written, or another run is fetching it.
        """
        scheme, _, rest = self.url.partition(":")
        if scheme == "package":
            with resources.as_file(resources.files(promptgen) / rest) as path:
                self._take(path, target)
        elif scheme == "file":
            self._take(self.models.parent / rest, target)
        elif self.member is not None:
            with folder_lock(folder := self._folder(ARCHIVES)):
                archive = self._download(folder, shown(self.url).rpartition("/")[2], None, patience)
                extract(archive, self.member, target, self.size)
        else:
            folder = self._folder(f"{PARTIAL}/{title}")
            shutil.move(self._download(folder, title, self.size, patience), target)
            shutil.rmtree(folder)

    def _take(self, path: Path, target: Path) -> None:
        if self.member is not None and path.is_file():
            extract(path, self.member, target, self.size)
        else:
            copy(path, target)

    def _folder(self, name: str) -> Path:
        """Return the path of a folder for this URL alone."""
        return self.models / name / hashlib.sha256(self.url.encode()).hexdigest()[:16]

    def _download(self, folder: Path, title: str, size: int | None, patience: Patience) -> Path:
        url, secrets = hub_address(self.url) if self.url.startswith("hub:") else (self.url, {})
        folder.mkdir(parents=True, exist_ok=True)
        return download(url, folder, title, size=size, secrets=secrets, patience=patience)


def copy(source: Path, target: Path) -> None:
    """Copy a file.

    Raises:
        ModelFileError: `source` is not a file.
        StorageError: the disk has no room for the copy.
        OSError: `target` cannot be written.
    """
    if not source.is_file():
        raise ModelFileError(f"{source} does not exist")
    require_space(target, source.stat().st_size)
    shutil.copyfile(source, target)
