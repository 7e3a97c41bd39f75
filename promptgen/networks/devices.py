"""The device that networks run on: the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

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


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on a device; a GPU copies it from pinned memory while this process goes on."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def fetched(tensor: Tensor) -> Tensor:
    """Return a tensor without its graph on the CPU; a GPU copies it into pinned memory while this process goes on.

    Its numbers are there after `wait_for` the GPU.
    """
    if not tensor.is_cuda:
        return tensor.detach().cpu()
    held = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return held.copy_(tensor.detach(), non_blocking=True)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute on the CPU with `count` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
