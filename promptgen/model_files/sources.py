"""Sources of model files: this package, this machine, the network, the hub, and the indexes of packages.

A source gives the file itself or an archive that contains it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import promptgen
from promptgen.errors import ModelFileError
from promptgen.files import folder_lock, require_space
from promptgen.model_files.addresses import hub_address, shown
from promptgen.model_files.archives import extract
from promptgen.model_files.downloads import Patience, download
from promptgen.model_files.packages import NPM, PYPI, Index

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
            UnreachableError: the server or the index of packages does not answer.
            ChecksumError: the file does not have the expected size.
            StorageError: the file cannot be written, or another run is fetching it.
        """
        kind_of(self.url).bring(self, title, target, patience)

    def take(self, path: Path, target: Path) -> None:
        """Copy a file of this machine, or its member if it is an archive."""
        if self.member is not None and path.is_file():
            extract(path, self.member, target, self.size)
        else:
            copy(path, target)

    def folder(self, name: str, address: str) -> Path:
        """Return the path of a folder in `name` for one address alone."""
        return self.models / name / hashlib.sha256(address.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Kind:
    """A kind of URL.

    Attributes:
        form: how its URLs are written.
        pattern: pattern of the whole URL.
        bring: writes the file to a path; see `Source.bring`.
        names_member: whether its URLs name a file inside an archive themselves.
    """

    form: str
    pattern: re.Pattern[str]
    bring: Callable[[Source, str, Path, Patience], None]
    names_member: bool = False


def kind_of(url: str) -> Kind:
    """Return the kind of a URL.

    Raises:
        ValueError: it is of no kind, or not written as its kind is; the message states the form.
    """
    scheme = url.partition(":")[0]
    if scheme not in KINDS:
        raise ValueError(f"should be {' or '.join(dict.fromkeys(kind.form for kind in KINDS.values()))}")
    if not KINDS[scheme].pattern.fullmatch(url):
        raise ValueError(f"should be {KINDS[scheme].form}")
    return KINDS[scheme]


def _bring_shipped(source: Source, title: str, target: Path, patience: Patience) -> None:
    with resources.as_file(resources.files(promptgen) / source.url.partition(":")[2]) as path:
        source.take(path, target)


def _bring_local(source: Source, title: str, target: Path, patience: Patience) -> None:
    source.take(source.models.parent / source.url.partition(":")[2], target)


def _bring_download(source: Source, title: str, target: Path, patience: Patience) -> None:
    _bring_from(source, source.url, {}, title, target, patience)


def _bring_from_hub(source: Source, title: str, target: Path, patience: Patience) -> None:
    _bring_from(source, *hub_address(source.url), title, target, patience)


def _bring_from(
    source: Source, url: str, secrets: Mapping[str, str], title: str, target: Path, patience: Patience
) -> None:
    """Download the file at a web address, or the archive there, which is kept for its other files."""
    if source.member is None:
        (folder := source.folder(f"{PARTIAL}/{title}", source.url)).mkdir(parents=True, exist_ok=True)
        shutil.move(download(url, folder, title, size=source.size, secrets=secrets, patience=patience), target)
        shutil.rmtree(folder)
        return
    with folder_lock(folder := source.folder(ARCHIVES, source.url)):
        name = shown(source.url).rpartition("/")[2]
        archive = download(url, folder, name, secrets=secrets, patience=patience)
        extract(archive, source.member, target, source.size)


def _package_file(index: Index) -> Kind:
    """Return the kind of URL that names a file inside a package; the package is kept for its other files."""

    def bring(source: Source, title: str, target: Path, patience: Patience) -> None:
        package, *_, file = index.parts(source.url)
        with folder_lock(folder := source.folder(ARCHIVES, package)):
            extract(index.archive(source.url, folder, patience), file, target, source.size, index.top)

    return Kind(index.form, index.pattern, bring, names_member=True)


_WEB = Kind("https://...", re.compile(r"https?://[!-.0-?A-~]+/[!-~]*"), _bring_download)  # no password before an @

KINDS: Mapping[str, Kind] = {
    "https": _WEB,
    "http": _WEB,
    "hub": Kind("hub:OWNER/REPO/PATH", re.compile(r"hub:[\w.-]+/[\w.-]+/[!-~]+"), _bring_from_hub),
    "pypi": _package_file(PYPI),
    "npm": _package_file(NPM),
    "package": Kind("package:PATH", re.compile(r"package:.+"), _bring_shipped),
    "file": Kind("file:PATH", re.compile(r"file:.+"), _bring_local),
}
"""The kinds of URLs, by scheme."""


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
