"""Compilation of frozen networks by `torch.compile`.

A compiled network fuses what moves memory, such as biases, activations and filters. Its figures differ by rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from promptgen.networks.frozen import networks_in, rebound


def compiled(model: Any) -> Any:
    """Have the frozen networks in a model compiled when they are first used, and return the model.

    Args:
        model: a network, a method of one, or what is built of them; networks that do not derive from
            `promptgen.networks.frozen.FrozenModule` are left as they are.
    """
    for network in networks_in(model):
        if not network.is_compiled:
            network.wrap_entries(_compiled)
            network.is_compiled = True
    return rebound(model)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # The last batch is smaller than the others: at the second size, torch compiles once more, for sizes of all kinds.
    result: Callable[..., Any] = torch.compile(function)
    return result
