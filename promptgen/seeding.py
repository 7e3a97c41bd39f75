"""Named random streams: the same (seed, names) gives the same numbers, different names give independent ones.

Nothing in the library touches torch's global random state. Each use of randomness names its stream
(``stream(seed, "train", step)``, ``stream(seed, "evaluate", block)``), so the samples that select a checkpoint are
never those that evaluate it, and a restarted run draws the same numbers as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # seeds are derived without importing torch
    import torch


def derive(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and on every name, in order."""
    text = "/".join([str(int(seed)), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh random generator for the stream `names` under `seed`.

    Example:
        >>> import torch
        >>> first, again, other = (stream(1, "train", step) for step in (0, 0, 1))
        >>> numbers = torch.rand(3, generator=first)
        >>> torch.equal(numbers, torch.rand(3, generator=again)), torch.equal(numbers, torch.rand(3, generator=other))
        (True, False)
    """
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *names))
