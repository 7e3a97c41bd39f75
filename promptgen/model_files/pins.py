"""What was recorded of fetched files whose cards have no sha256: `models.lock`, beside the models folder.

It is meant to be committed: every later use, and every later fetch on any machine, is held against it. Entries are
sorted and have no dates, so that the same files make the same text.

    stylegan2-ffhq-1024/ffhq.pt:
      sha256: 64 hexadecimal digits
      size: bytes
      url: the address that gave it; null where somebody put it there
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

_HEAD = "# What was fetched of files whose cards have no sha256. Commit it: later fetches are held against it.\n"


class Pin(Section):
    """What was recorded of one file.

    Attributes:
        sha256: of the whole file.
        size: bytes.
        url: the address that gave it, without its query; null where somebody put the file there.
    """

    sha256: SHA256
    size: Annotated[int, Field(gt=0)]
    url: str | None


def read_pins(models: Path) -> dict[str, Pin]:
    """Return what is recorded beside the folder `models`, by ``NAME/FILE``.

    Raises:
        ConfigError: the file is not what `record` writes.
    """
    path = models.parent / PINS_NAME
    content = (read_yaml(path) or {}) if path.is_file() else {}
    try:
        return {key: validate(Pin, entry) for key, entry in content.items()}
    except (ConfigError, AttributeError) as error:
        raise ConfigError(f"{path}: {error}; take its last committed version, or delete it and fetch again") from error


def record(models: Path, key: str, pin: Pin) -> None:
    """Add what was fetched to what is recorded; several processes may do so at once.

    Raises:
        StorageError: the file cannot be written.
        ConfigError: it is damaged.
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
