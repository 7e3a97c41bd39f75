"""Several processes that train one flow together, as torchrun starts them; without torchrun, there is one.

All do the same work on the same random numbers, but each computes the loss on its own share of every batch. The
gradients are summed in one place, so the parameters stay equal bit for bit. Whatever decides what happens next comes
from the first process, since two GPUs may round differently; it alone evaluates images for kept records, and writes.

We do not wrap the flow in `DistributedDataParallel`: it sums gradients as they arise in one forward and one backward
pass, while the path gradient runs the flow twice, once with constant parameters, and a step may be cut into several
backward passes.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn

from promptgen.errors import ConfigError

R = TypeVar("R")

PATIENCE = timedelta(days=2)
"""Time that processes wait for each other, such as for the first one while it evaluates images."""


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if _together() else 0


def size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if _together() else 1


def is_first() -> bool:
    """Return whether this process writes files and talks to the user."""
    return rank() == 0


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun has started, if it has; this process leaves them at the end of the block.

    Raises:
        ConfigError: there are more processes than GPUs on this machine.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available():
        number, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= gpus:
            raise ConfigError(f"torchrun has started more processes than the {gpus} GPUs: lower --nproc-per-node")
        torch.cuda.set_device(number)
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def from_first(compute: Callable[[], R]) -> R:
    """Compute something in the first process alone; return its result, or raise its error, in all of them."""
    if not _together():
        return compute()
    message: list[bytes | None] = [None]
    error: Exception | None = None
    if is_first():
        try:
            message = [_packed(compute())]
        except Exception as raised:
            error = raised
    distributed.broadcast_object_list(message, src=0)
    if error is not None:
        raise error
    if message[0] is None:
        raise ConfigError("the first process has failed; see its message")
    return cast(R, _unpacked(message[0]))


def share(n: int) -> slice:
    """Return which of `n` samples are those of this process.

    Raises:
        ConfigError: there are fewer samples than processes.

    Example:
        >>> share(8)
        slice(0, 8, None)
    """
    if n < size():
        raise ConfigError(f"{size()} processes cannot share {n} samples: lower --nproc-per-node")
    return slice(n * rank() // size(), n * (rank() + 1) // size())


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients of parameters by their sums over all processes."""
    if not _together():
        return
    held = [parameter for parameter in parameters if parameter.requires_grad]
    gradients = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in held]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    for parameter, part in zip(held, torch.split(flat, [parameter.numel() for parameter in held]), strict=True):
        parameter.grad = part.view_as(parameter)


def mean(values: Tensor) -> Tensor:
    """Return the mean of tensors of all processes."""
    return gathered(values[None]).mean(dim=0) if _together() else values


def gathered(values: Tensor) -> Tensor:
    """Return the rows of all processes, in their order."""
    if not _together():
        return values
    parts: list[Tensor | None] = [None] * size()
    distributed.all_gather_object(parts, values.detach().cpu())
    return torch.cat([part for part in parts if part is not None]).to(values)


def keep_equal(module: nn.Module) -> None:
    """Give a module of all processes the parameters and buffers that the first one has."""
    if _together():
        module.load_state_dict(from_first(lambda: dict(module.state_dict())))


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _packed(result: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(result, buffer)
    return buffer.getvalue()


def _unpacked(message: bytes) -> object:
    """Return a result of the first process, its tensors on this process's own GPU.

    The message is of the same command of the same user, as those between an engine and its workers.
    """

    def place(storage: Any, location: str) -> Any:
        return storage.cuda(torch.cuda.current_device()) if location.startswith("cuda") else storage

    return torch.load(io.BytesIO(message), map_location=place, weights_only=False)
