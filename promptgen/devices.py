"""Where networks run: on the CPU, or on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from promptgen.errors import ConfigError


def find_device(name: str = "auto") -> torch.device:
    """Return the device of that name.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1`` and so on; ``auto`` is a GPU if there is one, and else the CPU.

    Raises:
        ConfigError: there is no such device, or this torch cannot use it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"{name!r} is no device; expected cpu, cuda, such as cuda:1, or auto") from error
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= gpus):
        known = ", ".join(["cpu", *(f"cuda:{index}" for index in range(gpus))])
        raise ConfigError(f"this torch has no {name}; expected {known} or auto")
    return device


def placed(model: Any, device: torch.device) -> Any:
    """Return a network, or a method of one, on a device; a function that is neither as it is."""
    owner = getattr(model, "__self__", model)
    if isinstance(owner, nn.Module):
        owner.to(device)
    return model
