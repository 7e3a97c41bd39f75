"""Gradients in bounded memory: what a part of a network computes on the way is computed again on the way back.

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
    """Call a part of a network; for a gradient its insides are computed again instead of being kept.

    Where no gradient is asked for, this is the call alone. Images and gradients are the same either way.

    Args:
        function: the part, which draws no random numbers.
        arguments: what goes in, any shapes; this is kept for the way back.

    Returns:
        What the function returns.
    """
    if torch.is_grad_enabled() and any(argument.requires_grad for argument in arguments):
        return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return function(*arguments)
