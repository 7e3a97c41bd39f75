"""What the URLs of cards stand for: a file of this package or machine, of the network, of the hub; or a part of one."""

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
"""Folder, in the models folder, of transfers that have not ended."""

ARCHIVES = ".archives"
"""Folder, in the models folder, of the archives that files were taken out of, kept for the other files in them. It may
be deleted whenever nothing is being fetched."""


@dataclass(frozen=True)
class Source:
    """One URL of a card.

    Attributes:
        url: the URL.
        member: path of the file in the archive that the URL gives; None where it gives the file.
        size: bytes of the file; None where nobody knows.
        models: folder of the weight files; relative paths start beside it.
    """

    url: str
    member: str | None
    size: int | None
    models: Path

    def bring(self, title: str, target: Path, patience: Patience) -> None:
        """Write the file to `target`; `title`, ``NAME/FILE``, is what it is called in logs.

        Raises:
            ModelFileError: it is not there, or cannot be had.
            ChecksumError: it is of another size.
            StorageError: it cannot be written, or another run is at it.
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
        """Return a folder that belongs to this URL alone."""
        return self.models / name / hashlib.sha256(self.url.encode()).hexdigest()[:16]

    def _download(self, folder: Path, title: str, size: int | None, patience: Patience) -> Path:
        url, secrets = hub_address(self.url) if self.url.startswith("hub:") else (self.url, {})
        folder.mkdir(parents=True, exist_ok=True)
        return download(url, folder, title, size=size, secrets=secrets, patience=patience)


def copy(source: Path, target: Path) -> None:
    """Copy a file.

    Raises:
        ModelFileError: there is none.
        StorageError: the disk has no room for it.
        OSError: it cannot be written.
    """
    if not source.is_file():
        raise ModelFileError(f"{source} does not exist")
    require_space(target, source.stat().st_size)
    shutil.copyfile(source, target)
