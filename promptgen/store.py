"""Weight files: what they are (cards), where they come from (URLs), and whether they are sound (sha256).

Cards lie in the `cards.yaml` beside the code that reads the files. A file is taken from the first URL that gives it,
into the project's models folder, and is used only if its sha256 is the card's.

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
from typing import Annotated, Any, Literal

from pydantic import Field

import promptgen
from promptgen.errors import ChecksumError, ConfigError, ModelFileError
from promptgen.files import atomic_path, folder_lock, sha256_of, storage_error
from promptgen.specs import Name
from promptgen.strict import Section, did_you_mean, read_yaml, validate

logger = logging.getLogger("promptgen")

TIMEOUT_SECONDS = 60
PARTIAL = ".partial"
_CHUNK = 1 << 20


class Card(Section):
    """What is known of one weight file.

    Attributes:
        kind: what the model is for.
        type: key of the function that builds the model, in `promptgen.build.MODELS`.
        file: name of the file in the models folder.
        urls: where the file can be had, tried in this order.
        sha256: of the whole file, 64 hexadecimal digits.
        size: bytes.
        licence: name of the licence.
        arguments: keyword arguments for the function that builds the model.
        training: how the file was made: command, seeds and the like.
        quality: measured figures by name.
        note: anything else worth knowing.
    """

    kind: Literal["generator", "classifier", "clip", "pose", "identity", "multipliers"]
    type: Name
    file: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    urls: Annotated[list[str], Field(min_length=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, Field(gt=0)]
    licence: str
    arguments: Annotated[dict[str, Any], Field(default_factory=dict)]
    training: Annotated[dict[str, Any], Field(default_factory=dict)]
    quality: Annotated[dict[str, Any], Field(default_factory=dict)]
    note: str = ""


def load_cards(folder: Path | None = None) -> dict[str, Card]:
    """Return every card by name, from the `cards.yaml` files below `folder`, by default those of this package.

    Raises:
        ConfigError: a card is not one, or two cards have the same name.
    """
    cards: dict[str, Card] = {}
    for path in sorted((folder or Path(promptgen.__file__).parent).rglob("cards.yaml")):
        for name, data in (read_yaml(path) or {}).items():
            if name in cards:
                raise ConfigError(f"{path}: the card {name} exists twice; rename one")
            try:
                cards[name] = validate(Card, data)
            except ConfigError as error:
                raise ConfigError(f"{path}: card {name}: {error}") from error
    return cards


def card(name: str) -> Card:
    """Return the card called `name`.

    Raises:
        ConfigError: there is none; close names are told.
    """
    cards = load_cards()
    if name not in cards:
        raise ConfigError(f"there is no model called {name!r}{did_you_mean(name, cards)}")
    return cards[name]


def resolve(name: str, models: Path) -> Path:
    """Return the file of the model `name` in the folder `models`, after comparing its sha256 with the card's.

    Raises:
        ModelFileError: the file is missing.
        ChecksumError: the file is damaged, or is another one.
    """
    wanted = card(name)
    path = models / wanted.file
    if not path.is_file():
        raise ModelFileError(f"{path} is missing; fetch it with `python -m steps.fetch {name}`")
    _check(path, wanted, f"delete it and fetch it again with `python -m steps.fetch {name}`")
    return path


def fetch(name: str, models: Path) -> Path:
    """Put the file of the model `name` into the folder `models`, unless it is there and sound; return its path.

    Raises:
        ConfigError: there is no such card.
        ModelFileError: no URL gave the file; the message has each one's reason.
        ChecksumError: the only fault was that what came is not what the card says.
        StorageError: the file cannot be written, or another run is fetching it.
    """
    wanted = card(name)
    path = models / wanted.file
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


def _fetch_from(url: str, wanted: Card, path: Path) -> None:
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


def _copy(source: Path, wanted: Card, path: Path) -> None:
    if not source.is_file():
        raise ModelFileError(f"{source} does not exist")
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)
        _check(temporary, wanted, "is the card up to date?", source)


def _download(url: str, wanted: Card, path: Path) -> None:
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


def _check(path: Path, wanted: Card, way_out: str, source: object = None) -> None:
    found = sha256_of(path)
    if found != wanted.sha256:
        raise ChecksumError(f"{source or path} has sha256 {found[:12]}..., expected {wanted.sha256[:12]}...; {way_out}")
