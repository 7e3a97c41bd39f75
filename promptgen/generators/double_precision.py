"""Keep double precision inside networks that cast their activations to single precision for safety.

The networks of diffusers cast inside attention and normalisation, to protect half precision. In double precision the
same cast rounds, and a gradient can no longer be checked against finite differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint


@contextmanager
def keeping_double(like: Tensor) -> Iterator[None]:
    """Inside the block, casts from double to single precision do nothing; no effect unless `like` is in double."""
    if like.dtype != torch.float64:
        yield
        return
    with _KeepDouble():
        yield


def recomputed_block(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a block of a network; the backward pass recomputes its activations, in the same precision.

    This is what diffusers takes as `gradient_checkpointing_func`. The block must not draw random numbers.
    """
    like = next((value for value in arguments if isinstance(value, Tensor)), torch.empty(0))

    def inside(*arguments: Any) -> Any:
        with keeping_double(like):
            return function(*arguments)

    return checkpoint(inside, *arguments, use_reentrant=False, preserve_rng_state=False)


class _KeepDouble(TorchFunctionMode):
    """Casts of double to single precision return their input."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func in (torch.Tensor.float, torch.Tensor.to) and args[0].dtype == torch.float64:
            arguments = (*args[1:], *named.values())
            if func is torch.Tensor.float or torch.float32 in [
                value for value in arguments if isinstance(value, torch.dtype)
            ]:
                return args[0]
        return func(*args, **named)
