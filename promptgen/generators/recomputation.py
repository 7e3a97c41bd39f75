"""Gradient checkpointing: the backward pass recomputes a subnetwork's activations instead of storing them.

Source: *Training Deep Nets with Sublinear Memory Cost* (Chen, Xu, Zhang, Guestrin, 2016,
https://arxiv.org/abs/1604.06174), by `torch.utils.checkpoint`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable[..., Any], *arguments: Tensor) -> Any:
    """Call a subnetwork; the backward pass recomputes its activations instead of storing them.

    Without a gradient, this is a plain call. Outputs and gradients are the same either way.

    Args:
        function: the subnetwork, which must not draw random numbers.
        arguments: inputs of any shape, stored for the backward pass.

    Returns:
        The output of `function`.
    """
    if torch.is_grad_enabled() and any(argument.requires_grad for argument in arguments):
        return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return function(*arguments)
