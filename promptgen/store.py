"""Weight files: where they come from (URLs), and whether they are sound (sha256).

A file is taken from the first URL of its card that gives it, into ``models/NAME/``, and is used only if its sha256 is
the card's.

    package:PATH     a file shipped inside this package
    file:PATH        a file on this machine
    https://...      the network; a broken transfer goes on where it stopped
"""

from __future__ import annotations

import http
import http.client
import logging
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import promptgen
from promptgen.cards import CardFile, find_card
from promptgen.errors import ChecksumError, ModelFileError
from promptgen.files import atomic_path, folder_lock, sha256_of, storage_error

logger = logging.getLogger("promptgen")

TIMEOUT_SECONDS = 60
PARTIAL = ".partial"
_CHUNK = 1 << 20


def resolve(name: str, models: Path) -> list[Path]:
    """Return the files of the model `name` in the folder `models`, after comparing each one's sha256 with the card's.

    Raises:
        ConfigError: there is no such card.
        ModelFileError: a file is missing.
        ChecksumError: a file is damaged, or is another one.
    """
    paths = []
    for wanted in find_card(name, models).files:
        path = models / name / wanted.file
        if not path.is_file():
            raise ModelFileError(f"{path} is missing; fetch it with `python -m steps.fetch {name}`")
        _check(path, wanted, f"delete it and fetch it again with `python -m steps.fetch {name}`")
        paths.append(path)
    return paths


def digests(name: str, models: Path) -> dict[str, str]:
    """Return the sha256 of each file of the model `name`, by ``NAME/FILE``.

    Raises:
        ConfigError: there is no such card.
        ModelFileError: the card has none and the file is not there.
    """
    found = {}
    for wanted in find_card(name, models).files:
        path = models / name / wanted.file
        if wanted.sha256 is None and not path.is_file():
            raise ModelFileError(f"{path} is missing; fetch it with `python -m steps.fetch {name}`")
        found[f"{name}/{wanted.file}"] = wanted.sha256 or sha256_of(path)
    return found


def fetch(name: str, models: Path) -> list[Path]:
    """Put the files of the model `name` into the folder `models`, unless they are there and sound; return their paths.

    Raises:
        ConfigError: there is no such card.
        ModelFileError: no URL gave a file; the message has each one's reason.
        ChecksumError: the only fault was that what came is not what the card says.
        StorageError: a file cannot be written, or another run is fetching it.
    """
    return [_fetch_file(name, wanted, models / name / wanted.file) for wanted in find_card(name, models).files]


def _fetch_file(name: str, wanted: CardFile, path: Path) -> Path:
    if path.is_file() and sha256_of(path) == wanted.sha256:
        return path
    faults: list[ModelFileError] = []
    for url in wanted.urls:
        try:
            _fetch_from(url, wanted, path)
        except ModelFileError as error:
            faults.append(error)
            logger.warning("%s", error)
        else:
            return path
    kind = ChecksumError if all(isinstance(fault, ChecksumError) for fault in faults) else ModelFileError
    raise kind(f"cannot fetch {name}: {'; '.join(map(str, faults))}")


def _fetch_from(url: str, wanted: CardFile, path: Path) -> None:
    """Put the file at `url` in place once its sha256 is the card's."""
    scheme, _, rest = url.partition(":")
    if scheme == "package":
        with resources.as_file(resources.files(promptgen) / rest) as source:
            _copy(source, wanted, path)
    elif scheme == "file":
        _copy(Path(rest), wanted, path)
    elif scheme in ("https", "http"):
        _download(url, wanted, path)
    else:
        raise ModelFileError(f"{url}: unknown kind of URL, expected package:, file: or https:")


def _copy(source: Path, wanted: CardFile, path: Path) -> None:
    if not source.is_file():
        raise ModelFileError(f"{source} does not exist")
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)
        _check(temporary, wanted, "is the card up to date?", source)


def _download(url: str, wanted: CardFile, path: Path) -> None:
    """Transfer `url`, going on where an earlier transfer broke off; the part lies in a folder of its own."""
    folder = path.parent / PARTIAL / wanted.sha256
    part = folder / wanted.file
    with folder_lock(folder):
        _transfer(url, part)
        size = part.stat().st_size
        if size < wanted.size:
            raise ModelFileError(f"{url} broke off after {size} of {wanted.size} bytes; run again to go on")
        try:
            _check(part, wanted, "is the card up to date?", url)
        except ChecksumError:
            part.unlink()
            raise
        with atomic_path(path) as temporary:
            os.replace(part, temporary)
    shutil.rmtree(folder, ignore_errors=True)


def _transfer(url: str, part: Path) -> None:
    """Append what is missing of `url` to the file `part`."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is missing
        raise ModelFileError(f"{url}: {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise ModelFileError(f"{url}: {getattr(error, 'reason', error)}") from error
    try:
        with response, part.open("ab" if response.status == http.HTTPStatus.PARTIAL_CONTENT else "wb") as file:
            for chunk in _chunks(response, url):
                file.write(chunk)
    except OSError as error:
        raise storage_error(part, error) from error


def _chunks(response: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
    """Yield what comes; only a fault of the network is told from one of the disk here."""
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise ModelFileError(f"{url} broke off ({error}); run again to go on") from error


def _check(path: Path, wanted: CardFile, way_out: str, source: object = None) -> None:
    found = sha256_of(path)
    if found != wanted.sha256:
        raise ChecksumError(f"{source or path} has sha256 {found[:12]}..., expected {wanted.sha256[:12]}...; {way_out}")
