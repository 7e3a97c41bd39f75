"""Named random streams: the same (seed, names) gives the same numbers, other names give independent ones.

Nothing in the library touches torch's global random state. Each use of randomness names its stream
(``stream(seed, "train", step)``, ``stream(seed, "evaluate", block)``), so the samples that choose a checkpoint can
never be the samples that report it, and a restarted run draws what the first one would have drawn.
"""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and on every name, in order."""
    text = "/".join([str(int(seed)), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh random generator for the stream called `names` under `seed`."""
    return torch.Generator(device=device).manual_seed(derive(seed, *names))
