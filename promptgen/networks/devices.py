"""The device that networks run on: the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from promptgen.errors import ConfigError


def find_device(name: str = "auto") -> torch.device:
    """Return the torch device with this name.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1`` and so on, or ``auto`` for a GPU if there is one and the CPU otherwise.

    Raises:
        ConfigError: there is no such device, or the installed torch cannot use it.

    Example:
        >>> find_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"{name!r} is not a device; expected cpu, cuda, cuda:1 and so on, or auto") from error
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= gpus):
        names = ", ".join(["cpu", *(f"cuda:{index}" for index in range(gpus))])
        raise ConfigError(f"this torch has no device {name}; expected {names} or auto")
    return device


def placed(model: Any, device: torch.device) -> Any:
    """Move a network, or the network that a method belongs to, to a device; return other callables unchanged."""
    owner = getattr(model, "__self__", model)
    if isinstance(owner, nn.Module):
        owner.to(device)
    return model


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute on the CPU with `count` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
