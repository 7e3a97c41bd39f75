"""Checksums of fetched files whose cards have no sha256, recorded in `models.lock` beside the models folder.

Commit this file: every later use or fetch, on any machine, is checked against it. Entries are sorted and have no dates,
so that equal files give equal text.

    stylegan2-ffhq-1024/ffhq.pt:
      sha256: 64 hexadecimal digits
      size: bytes
      url: the address of the download; null if the file was put there by hand
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import filelock
import yaml
from pydantic import Field

from promptgen.errors import ConfigError, StorageError
from promptgen.files import LOCK_NAME, atomic_write, storage_error
from promptgen.model_files.cards import SHA256
from promptgen.strict import Section, read_yaml, validate

PINS_NAME = "models.lock"
LOCK_SECONDS = 30.0

_HEAD = "# Checksums of fetched files whose cards have no sha256. Commit it: later fetches are checked against it.\n"


class Pin(Section):
    """Record of one fetched file.

    Attributes:
        sha256: checksum of the whole file.
        size: size in bytes.
        url: address of the download, without its query; null if the file was put there by hand.
    """

    sha256: SHA256
    size: Annotated[int, Field(gt=0)]
    url: str | None


def read_pins(models: Path) -> dict[str, Pin]:
    """Return the records in the `models.lock` beside the folder `models`, by ``NAME/FILE``.

    Raises:
        ConfigError: `models.lock` is damaged.
    """
    path = models.parent / PINS_NAME
    content = (read_yaml(path) or {}) if path.is_file() else {}
    try:
        return {key: validate(Pin, entry) for key, entry in content.items()}
    except (ConfigError, AttributeError) as error:
        raise ConfigError(f"{path}: {error}; restore the last committed version, or delete it and fetch it") from error


def record(models: Path, key: str, pin: Pin) -> None:
    """Add the record of a fetched file to `models.lock`; several processes may do so at once.

    Raises:
        StorageError: `models.lock` cannot be written.
        ConfigError: `models.lock` is damaged.
    """
    try:
        with filelock.FileLock(models / LOCK_NAME, timeout=LOCK_SECONDS):
            pins = read_pins(models) | {key: pin}
            content = {name: pins[name].model_dump() for name in sorted(pins)}
            atomic_write(models.parent / PINS_NAME, _HEAD + yaml.safe_dump(content))
    except filelock.Timeout as error:
        raise StorageError(f"{models} is held by another run: wait for it to end, or stop it") from error
    except OSError as error:
        raise storage_error(models / LOCK_NAME, error) from error
