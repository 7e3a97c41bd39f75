"""Compilation of frozen networks by `torch.compile`.

A compiled network fuses what moves memory, such as biases, activations and filters. Its figures differ by rounding.
"""

from __future__ import annotations

from typing import Any

import torch

from promptgen.networks.frozen import networks_in, rebound


def compiled(model: Any) -> Any:
    """Let the frozen networks in a model be compiled when they are first used, and return the model.

    Args:
        model: a network, a method of one, or what is built of them; networks that do not derive from
            `promptgen.networks.frozen.FrozenModule` are left as they are.
    """
    for network in networks_in(model):
        if not network.is_compiled:
            # At a second batch size, such as that of the last batch, torch compiles once more, for sizes of all kinds.
            network.wrap_entries(torch.compile)
            network.is_compiled = True
    return rebound(model)
