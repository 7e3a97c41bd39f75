"""Trainings on evaluations that take fewer steps, where a test asks less of a flow than an experiment does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest


class Steps(NamedTuple):
    """What a training takes.

    Attributes:
        quick: optimiser steps of a quick descent.
        thorough: those of a thorough one.
        surrogate: optimiser steps of a surrogate.
        pool: samples in a pool of a descent.
        large: samples behind predicted shares.
    """

    quick: int
    thorough: int
    surrogate: int
    pool: int
    large: int


LEARNS = Steps(quick=160, thorough=400, surrogate=400, pool=4096, large=16_384)
"""Enough for the small problems of tests, whose bounds are those of the full number."""

COUNTS = Steps(quick=10, thorough=20, surrogate=20, pool=1024, large=4096)
"""Enough to see what a training counts, writes and keeps; the flow has learned little."""


@contextmanager
def shortened(steps: Steps = LEARNS) -> Iterator[None]:
    """Let trainings on evaluations take fewer steps for the length of a block."""
    from promptgen.evaluations import descent, landing, surrogate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(descent, "QUICK_STEPS", steps.quick)
        patch.setattr(descent, "THOROUGH_STEPS", steps.thorough)
        patch.setattr(descent, "POOL_SIZE", steps.pool)
        patch.setattr(landing, "LARGE", steps.large)
        patch.setitem(surrogate.fit_surrogate.__kwdefaults__, "steps", steps.surrogate)
        yield
