"""Read models of TensorFlow.js: a JSON manifest of weights, alone or in a model.json, and their binary shards.

Every size is compared with the shards before anything is allocated. A manifest names its shards, but only those given
by the caller are opened, so no path in it leads anywhere. Nothing of the files is run.

Format: https://github.com/tensorflow/tfjs (`WeightsManifestConfig`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from promptgen.errors import ConfigError, ModelFileError
from promptgen.loading.inspection.bounded import visible
from promptgen.loading.published import reading, require_file
from promptgen.strict import validate

M = TypeVar("M", bound=BaseModel)

MAX_MANIFEST = 4 << 20
"""Largest JSON file, bytes."""

MAX_RANK = 6
"""Most dimensions of a weight, as in TensorFlow.js."""

STORED = {"float32": "<f4", "int32": "<i4", "uint8": "<u1", "uint16": "<u2", "float16": "<f2"}
"""Types of the numbers in a shard, in numpy's words."""

WANTED = "a weight manifest of TensorFlow.js"


class Quantisation(BaseModel, frozen=True, allow_inf_nan=False):
    """How the numbers of a weight are stored: as half precision, or as whole numbers n for ``scale * n + min``."""

    dtype: Literal["uint8", "uint16", "float16"]
    scale: float | None = None
    min: float | None = None

    @model_validator(mode="after")
    def _whole_numbers_have_a_scale(self) -> Self:
        if self.dtype != "float16" and (self.scale is None or self.min is None):
            raise ValueError("whole numbers need a scale and a min")
        return self


class WeightEntry(BaseModel, frozen=True):
    """A weight in a manifest."""

    name: Annotated[str, Field(min_length=1, max_length=1000)]
    shape: Annotated[tuple[Annotated[int, Field(gt=0, lt=1 << 31)], ...], Field(max_length=MAX_RANK)]
    dtype: Literal["float32", "int32"]
    quantization: Quantisation | None = None

    @model_validator(mode="after")
    def _integers_are_stored_as_they_are(self) -> Self:
        if self.dtype == "int32" and self.quantization:
            raise ValueError("integers cannot be quantised")
        return self

    @property
    def stored(self) -> np.dtype[Any]:
        """Type of its numbers in the shard."""
        return np.dtype(STORED[self.quantization.dtype if self.quantization else self.dtype])

    @property
    def size(self) -> int:
        """Its length in the shard, bytes; a Python integer, which never overflows."""
        return prod(self.shape) * self.stored.itemsize


class Group(BaseModel, frozen=True):
    """Weights that lie one after the other in a sequence of shards."""

    paths: Annotated[tuple[str, ...], Field(min_length=1)]
    weights: tuple[WeightEntry, ...]


class _File(BaseModel, frozen=True):
    weightsManifest: Annotated[tuple[Group, ...], Field(min_length=1)]  # noqa: N815
    modelTopology: Any = None  # noqa: N815


class TFJSModel(NamedTuple):
    """What the files of a model hold.

    Attributes:
        weights: the weights by name, float32 or int32, in TensorFlow's layout.
        topology: the graph as plain JSON content; None in a manifest that stands alone.
    """

    weights: dict[str, Tensor]
    topology: Any


def read_tfjs(manifest: Path, shards: Sequence[Path]) -> TFJSModel:
    """Return the weights and the topology of a model of TensorFlow.js, on the CPU.

    Args:
        manifest: the JSON file, a list of groups of weights or an object with a ``weightsManifest``.
        shards: the binary files; the manifest refers to them by their names.

    Raises:
        ModelFileError: a file is missing or damaged, the manifest names another file or type, or sizes differ.
    """
    content = _parsed(manifest)
    names = Counter(entry.name for group in content.weightsManifest for entry in group.weights)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise ModelFileError(f"{manifest}: the weight {visible(repeated[0])} occurs twice; fetch it again")
    files = _files(content, manifest, shards)
    for group in content.weightsManifest:
        _require_size(group, [files[path] for path in group.paths], manifest)
    weights: dict[str, Tensor] = {}
    for group in content.weightsManifest:
        weights |= _weights(group, [files[path] for path in group.paths])
    return TFJSModel(weights, content.modelTopology)


def _parsed(path: Path) -> _File:
    with reading(path, WANTED):
        require_file(path, WANTED)
        with path.open("rb") as file:
            text = file.read(MAX_MANIFEST + 1)
        if len(text) > MAX_MANIFEST:
            raise ModelFileError(f"{path}: expected {WANTED} of at most {MAX_MANIFEST >> 20} MB; is it another file?")
        content = json.loads(text)
        return checked(_File, {"weightsManifest": content} if isinstance(content, list) else content, path, WANTED)


def checked(model: type[M], content: Any, path: Path, wanted: str) -> M:
    """Return the plain content of a file as a `model`.

    Raises:
        ModelFileError: a key is missing, or a value has a wrong type or is out of range.
    """
    try:
        return validate(model, content)
    except ConfigError as error:
        raise ModelFileError(f"{path}: expected {wanted}, but {visible(str(error))}; fetch it again") from error


def _files(content: _File, manifest: Path, shards: Sequence[Path]) -> dict[str, Path]:
    """Return the shards by name; the manifest must name each of them, once, and nothing else."""
    files = {shard.name: shard for shard in shards}
    named = [path for group in content.weightsManifest for path in group.paths]
    if sorted(named) != sorted(files):
        raise ModelFileError(
            f"{manifest}: it names the files {visible(', '.join(named))}, expected {', '.join(files) or 'none'}; "
            "fetch all files of one version"
        )
    return files


def _require_size(group: Group, shards: Sequence[Path], manifest: Path) -> None:
    """Refuse a group of weights that is not exactly as long as its shards."""
    held = 0
    for shard in shards:
        with reading(shard, "a shard of weights"):
            require_file(shard, "a shard of weights")
            held += shard.stat().st_size
    if (needed := sum(entry.size for entry in group.weights)) != held:
        names = ", ".join(map(str, shards))
        raise ModelFileError(f"{manifest}: it describes {needed} bytes, and {names} has {held}; fetch both again")


def _weights(group: Group, shards: Sequence[Path]) -> dict[str, Tensor]:
    """Return the weights of a group by name."""
    with reading(shards[0], "a shard of weights"):
        content = b"".join(shard.read_bytes() for shard in shards)
        weights, start = {}, 0
        for entry in group.weights:
            stored = np.frombuffer(content, entry.stored, prod(entry.shape), start)
            weights[entry.name] = torch.from_numpy(_numbers(stored, entry).reshape(entry.shape))
            start += entry.size
    if odd := [name for name, value in weights.items() if not bool(value.isfinite().all())]:
        raise ModelFileError(f"{shards[0]}: not finite: {visible(odd[0])}; fetch it again")
    return weights


def _numbers(stored: NDArray[Any], entry: WeightEntry) -> NDArray[Any]:
    """Return the numbers of a weight; whole numbers are scaled in double precision, as TensorFlow.js does."""
    how = entry.quantization
    with np.errstate(over="ignore"):  # infinities are refused afterwards
        if how is not None and how.scale is not None and how.min is not None and how.dtype != "float16":
            return (stored.astype(np.float64) * how.scale + how.min).astype(np.float32)
        return stored.astype(np.int32 if entry.dtype == "int32" else np.float32)
