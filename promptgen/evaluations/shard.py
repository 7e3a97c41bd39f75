"""A shard of the store on disk: the tensors of some records, and who has made their images."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from promptgen.files import atomic_write

logger = logging.getLogger("promptgen")


@dataclass(frozen=True)
class About:
    """What is known of a shard besides its tensors.

    Attributes:
        maker: who made its images first.
        slope: name of the features whose combination was differentiated; empty without gradients.
        added: who made its images again, each time, to read outputs that it lacked.
    """

    maker: str = ""
    slope: str = ""
    added: tuple[str, ...] = ()

    def with_addition(self, user: str) -> About:
        """Return the same after its images were made once more by a user."""
        return replace(self, added=(*self.added, user))

    @property
    def text(self) -> str:
        """One string, since safetensors writes the keys of its metadata in a random order."""
        return json.dumps(asdict(self))


def write_shard(path: Path, tensors: Mapping[str, Tensor], about: About) -> None:
    """Write a shard.

    Raises:
        StorageError: it cannot be written.
    """
    atomic_write(path, save({name: value.contiguous() for name, value in tensors.items()}, {"about": about.text}))


def read_shard(path: Path | None) -> tuple[dict[str, Tensor], About]:
    """Return the tensors of a shard and what is known of it; nothing if it is missing or damaged."""
    if path is None:
        return {}, About()
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
            about = json.loads(file.metadata()["about"])
            return tensors, About(about["maker"], about["slope"], tuple(about.get("added", ())))
    except FileNotFoundError:
        return {}, About()
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is damaged (%s): its images are made again", path, error)
        return {}, About()
