"""Read and write the project's own weight files: safetensors with a JSON config inside, which describes the network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from promptgen.errors import CheckpointError, ConfigError, DataError, one_line
from promptgen.files import atomic_write
from promptgen.loading.checks import number_faults
from promptgen.loading.published import DAMAGE

FORMAT = "promptgen"
VERSION = 1

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def save_module(path: Path | str, module: nn.Module, config: Mapping[str, Any]) -> None:
    """Write a module's parameters and buffers with a config; read them with `load_tensors` and `fill_module`.

    Raises:
        DataError: `config` is not plain JSON.
        StorageError: the file cannot be written.
    """
    save_tensors(path, module.state_dict(), config)


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write tensors with a config; equal content gives equal bytes.

    Raises:
        DataError: `config` is not plain JSON.
        StorageError: the file cannot be written.
    """
    try:
        text = json.dumps({"version": VERSION, "config": dict(config)}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"the config of {path} must be plain finite JSON: {error}") from error
    # Clone, since the format refuses tensors that share memory. One key, since safetensors does not keep their order.
    plain = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    atomic_write(path, save(plain, metadata={FORMAT: text}))


def load_tensors(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, on the CPU, and the config of one of the project's own files.

    Raises:
        CheckpointError: the file is missing, damaged, or was not written by this project.
    """
    try:
        Path(path).open("rb").close()  # safetensors reports an unreadable file as missing
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read, permission is denied: change its owner or mode") from error
    except DAMAGE as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file: fetch or write it again") from error
    return tensors, _config_of(metadata.get(FORMAT), path)


def fill_module(module: nn.Module, tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Copy `tensors` into the module's parameters and buffers; names and shapes must agree, and all numbers be finite.

    Raises:
        CheckpointError: a tensor is missing, unexpected, of another shape, or not finite.
    """
    expected = module.state_dict()
    if faults := number_faults(expected, {name: value for name, value in tensors.items() if name in expected}):
        raise CheckpointError(f"the weights in {path} are damaged: {'; '.join(faults)}; fetch or write the file again")
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {path} do not fit its config: {one_line(error)}") from error


@contextmanager
def building(tensors: Mapping[str, Tensor], described: Any, path: Path | str) -> Iterator[None]:
    """Guard the building of a network from a file's config, which is not trusted.

    Args:
        tensors: the file's tensors.
        described: the part of the config that gives the size of the network. No integer in it may exceed the count of
            numbers in the file, since each layer, channel or word has at least one.
        path: the file, for errors.

    Raises:
        CheckpointError: the config is not valid, or describes more than the file holds.
    """
    try:
        held = sum(value.numel() for value in tensors.values())
        if (largest := max(_integers(described), default=0)) > held:
            raise ValueError(f"it states {largest}, but the file has only {held} numbers")
        yield
    except (*DAMAGE, DataError, ConfigError) as error:
        reason = one_line(error)
        raise CheckpointError(f"the config in {path} does not describe a network ({reason}): fetch it again") from error


def _integers(described: Any) -> Iterator[int]:
    """Yield every integer in plain JSON."""
    if isinstance(described, Mapping | list | tuple):
        for part in described.values() if isinstance(described, Mapping) else described:
            yield from _integers(part)
    elif isinstance(described, int):
        yield described


def _config_of(text: str | None, path: Path | str) -> dict[str, Any]:
    """Return the config in a file's metadata."""
    if text is None:
        raise CheckpointError(f"{path} was not written by this project: it has no {FORMAT} config inside")
    try:
        content = json.loads(text)
        version, config = int(content["version"]), dict(content["config"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"the config in {path} is damaged: fetch or write the file again") from error
    if version > VERSION:
        raise CheckpointError(f"{path} has format version {version}, this library reads up to {VERSION}: update it")
    return config
