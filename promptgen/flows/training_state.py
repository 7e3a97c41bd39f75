"""The state of a training on disk, from which it resumes after a kill with identical numbers."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from promptgen.errors import CheckpointError
from promptgen.files import atomic_write
from promptgen.flows.flow import Flow


class HasState(Protocol):
    """Saves itself as plain tensors, numbers and strings."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass
class TrainingProgress:
    """How far a training has come, apart from the states of flow, optimiser and multipliers.

    Attributes:
        step: optimiser steps done.
        best: state of the flow with the lowest held-out loss; None before the first validation.
        best_loss: its held-out loss, nats.
        best_step: optimiser steps that led to it.
        history: one row of numbers per step.
        forward: images generated.
        backward: images differentiated.
        seconds: time spent.
    """

    step: int = 0
    best: dict[str, Tensor] | None = None
    best_loss: float = math.inf
    best_step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    forward: int = 0
    backward: int = 0
    seconds: float = 0.0


def save_state(
    path: Path,
    identity: Mapping[str, Any],
    progress: TrainingProgress,
    flow: Flow,
    optimiser: torch.optim.Optimizer,
    multipliers: HasState | None,
) -> None:
    """Write the state of a training in one file.

    Args:
        path: the file.
        identity: configuration that a later run must share to resume from it.
        progress: how far the training has come.
        flow: the flow, as of the last step.
        optimiser: its optimiser.
        multipliers: its multipliers, if any.

    Raises:
        StorageError: the file cannot be written.
    """
    content = {
        "identity": identity,
        "record": vars(progress),
        "flow": dict(flow.state_dict()),
        "optimiser": optimiser.state_dict(),
        "multipliers": None if multipliers is None else multipliers.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    atomic_write(path, buffer.getvalue())


def load_state(
    path: Path,
    identity: Mapping[str, Any],
    flow: Flow,
    optimiser: torch.optim.Optimizer,
    multipliers: HasState | None,
) -> TrainingProgress:
    """Restore flow, optimiser and multipliers, in place, from a file of `save_state`, and return the progress.

    Raises:
        CheckpointError: the file is damaged or belongs to another training.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        saved_identity = content["identity"]
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: delete it to train from the start") from error
    if saved_identity != identity:
        raise CheckpointError(f"{path} belongs to another training: delete it to train from the start")
    flow.load_state_dict(content["flow"])
    optimiser.load_state_dict(content["optimiser"])
    if multipliers is not None:
        multipliers.load_state_dict(content["multipliers"])
    return TrainingProgress(**content["record"])
