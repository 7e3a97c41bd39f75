"""Reading published weight files: never by running a pickle's code, and never with a key or a shape left over."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from promptgen.errors import ModelFileError

SHOWN = 3


def read_torch(path: Path) -> Any:
    """Return the content of a file written by ``torch.save``, on the CPU, of tensors and plain containers.

    Raises:
        ModelFileError: the file is missing or damaged, or holds objects that only running its pickle would make.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file; fetch the model first")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # trainings save their options; it is only data
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ModelFileError(
            f"{path}: expected a torch.save file of plain tensors; fetch it again ({reason})"
        ) from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU.

    Raises:
        ModelFileError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: expected a safetensors file ({error}); fetch it again") from error


def read_state(path: Path, entry: str) -> dict[str, Tensor]:
    """Return the state dict under the top-level key `entry` of a ``torch.save`` file; other entries are ignored.

    Raises:
        ModelFileError: the file cannot be read, has no such entry, or the entry is not a dict of tensors.
    """
    content = read_torch(path)
    if not isinstance(content, Mapping) or entry not in content:
        found = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise ModelFileError(f"{path}: expected the entry {entry!r}, found {found}; is it another model's file?")
    state = content[entry]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelFileError(f"{path}: expected a dict of tensors under {entry!r}; is it another model's file?")
    return dict(state)


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Copy `state` into `module`, which must have exactly its keys and shapes.

    Raises:
        ModelFileError: keys or shapes differ; names `source` and the first differences.
    """
    own = module.state_dict()
    wrong_shapes = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    differences = [
        *_listed("missing", own.keys() - state.keys()),
        *_listed("unexpected", state.keys() - own.keys()),
        *_listed("of another shape", wrong_shapes),
    ]
    if differences:
        raise ModelFileError(f"{source}: {'; '.join(differences)}; does the configured size belong to this file?")
    module.load_state_dict(state)


def _listed(what: str, keys: Collection[str]) -> list[str]:
    first = ", ".join(sorted(keys)[:SHOWN])
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return [f"{what}: {first}{more}"] if keys else []
