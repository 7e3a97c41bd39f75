"""What networks return must be finite: NaN and infinity would otherwise be counted as a class or drawn as black."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from promptgen.errors import DataError

if TYPE_CHECKING:  # class names are read without importing torch
    from torch import Tensor

FIX = "check its input, weights and floating-point type"


def require_finite(values: Tensor, source: str, first: int | None = 0) -> Tensor:
    """Return values, (B, ...), that are finite.

    Args:
        values: one or more numbers per sample.
        source: what they are, for the error, such as ``"the judge's logits of hair"``.
        first: number of the first sample of the batch; None if samples have no numbers.

    Raises:
        DataError: a value is NaN or infinite; the message names the first such sample.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[0.0, 1.0], [float("nan"), 0.0]])
        >>> require_finite(logits[:1], "the logits of hair").tolist()
        [[0.0, 1.0]]
        >>> not_finite(logits)
        {1: 'nan'}
    """
    if bool(values.isfinite().all()):  # the usual case costs one pass
        return values
    index, value = next(iter(not_finite(values).items()))
    sample = "an image" if first is None else f"sample {first + index}"
    raise DataError(f"{source} are {value} for {sample}, expected finite numbers; {FIX}")


def not_finite(values: Tensor) -> dict[int, str]:
    """Return, by position in a batch (B, ...), the first value that is not finite: ``nan``, ``inf`` or ``-inf``."""
    rows = values.detach().reshape(len(values), math.prod(values.shape[1:]))
    wrong = (~rows.isfinite().all(dim=1)).nonzero()[:, 0]
    return {
        index: str(next(value for value in row if not math.isfinite(value)))
        for index, row in zip(wrong.tolist(), rows[wrong].double().tolist(), strict=True)
    }


def unclear(logits: Mapping[str, Tensor]) -> dict[int, str]:
    """Return, by position in a batch, which attribute of logits (B, K) is not finite and what it is instead."""
    reasons: dict[int, str] = {}
    for name, part in logits.items():
        for index, value in not_finite(part).items():
            reasons.setdefault(index, f"logits of {name} are {value}")
    return reasons
