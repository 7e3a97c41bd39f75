"""What stores of evaluations hold, from the headers of their shards alone: torch is not needed."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from promptgen.errors import DataError
from promptgen.evaluations.config import FOLDER_NAME, IDENTITY_NAME
from promptgen.files import read_json

OUTPUT = "output/"
"""Start of the names of tensors that hold outputs."""

LENGTH = struct.Struct("<Q")
"""A shard begins with the length of its header, bytes."""


@dataclass(frozen=True)
class StoreContent:
    """What a store holds.

    Attributes:
        folder: its folder.
        generator: what the generator is: its specification, and the sha256 of each of its files.
        evaluations: number of records.
        gradients: those of them with a gradient.
        outputs: number of records that have an output, by the output's name.
        shards: number of files.
        damaged: those of them that cannot be read; their images are made again.
        size: bytes on the disk.
    """

    folder: Path
    generator: Mapping[str, str]
    evaluations: int
    gradients: int
    outputs: Mapping[str, int]
    shards: int
    damaged: int
    size: int


def find_stores(artifacts: Path, experiment: str | None = None) -> list[StoreContent]:
    """Return what the stores of an experiment, or of all experiments, hold.

    Args:
        artifacts: folder of the experiments' results.
        experiment: its name; None means all.

    Raises:
        DataError: the experiment has no store, or the description of a store is damaged.
    """
    folders = {path.parent for path in artifacts.glob(f"*/{FOLDER_NAME}/*/{IDENTITY_NAME}")}
    names = sorted({folder.parents[1].name for folder in folders})
    if experiment is not None and experiment not in names:
        raise DataError(
            f"{experiment} has no store of evaluations in {artifacts}, expected one of {', '.join(names) or 'none'}"
        )
    return [content_of(folder) for folder in sorted(folders) if experiment in (None, folder.parents[1].name)]


def content_of(folder: Path) -> StoreContent:
    """Return what a store holds.

    Raises:
        DataError: its description is damaged.
    """
    identity = read_json(folder / IDENTITY_NAME)
    if not isinstance(identity, dict):
        raise DataError(f"{folder / IDENTITY_NAME} does not describe a store of evaluations: move the folder away")
    evaluations = gradients = damaged = size = 0
    outputs: Counter[str] = Counter()
    shards = sorted(folder.glob("*.safetensors"))
    for path in shards:
        size += path.stat().st_size
        rows = _rows(path)
        if rows is None:
            damaged += 1
            continue
        evaluations += rows["latent"]
        gradients += rows.get("gradient", 0)
        outputs.update({name.removeprefix(OUTPUT): n for name, n in rows.items() if name.startswith(OUTPUT)})
    generator = {str(name): str(value) for name, value in identity.items()}
    return StoreContent(
        folder, generator, evaluations, gradients, dict(sorted(outputs.items())), len(shards), damaged, size
    )


def inventory_text(contents: list[StoreContent]) -> str:
    """Return what stores hold as a page, one paragraph per store."""
    return "\n\n".join("\n".join(_lines(content)) for content in contents)


def inventory_json(contents: list[StoreContent]) -> str:
    """Return what stores hold as a JSON list."""
    rows = [{**asdict(content), "folder": content.folder.as_posix()} for content in contents]
    return json.dumps(rows, indent=2)


def _rows(path: Path) -> dict[str, int] | None:
    """Return the number of rows of each tensor of a shard by its name; None for an incomplete shard."""
    try:
        with path.open("rb") as file:
            (length,) = LENGTH.unpack(file.read(LENGTH.size))
            size = path.stat().st_size
            if length > size:
                return None
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        rows = {name: int(tensor["shape"][0]) for name, tensor in header.items()}
        end = max(int(tensor["data_offsets"][1]) for tensor in header.values())
    except (OSError, struct.error, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None
    return rows if "latent" in rows and LENGTH.size + length + end == size else None


def _lines(content: StoreContent) -> Iterator[str]:
    yield f"{content.folder}"
    for name, value in content.generator.items():
        yield f"  {name:<13} {_short(value)}"
    damaged = f"; damaged: {content.damaged:,}, whose images are made again when needed" if content.damaged else ""
    yield f"  evaluations   {content.evaluations:,}, of them {content.gradients:,} with a gradient"
    for name, n in content.outputs.items():
        yield f"  output        {name}: {n:,}"
    yield f"  on the disk   {content.size / 1e6:,.1f} MB in {content.shards:,} files{damaged}"


def _short(value: str) -> str:
    """Return the specification of a generator as ``key: value, ...``, and the beginning of a checksum."""
    try:
        spec = json.loads(value)
    except ValueError:
        return value[:16]
    return ", ".join(f"{key}: {part}" for key, part in spec.items()) if isinstance(spec, dict) else value[:16]
