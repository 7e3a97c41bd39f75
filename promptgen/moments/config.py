"""How the multipliers are adjusted while a flow is trained: the `dual` section of params.yaml."""

from __future__ import annotations

from pydantic import Field

from promptgen.strict import Section


class DualConfig(Section):
    """How the multipliers are adjusted while a flow is trained.

    Attributes:
        rate: fraction of a Newton step per training step, initially; decays linearly to zero.
        average_last: final fraction of the ascent whose multipliers are averaged.
        warm_up: initial fraction of the training during which the multipliers stay as fitted. Moving them before the
            flow has caught up with them would overshoot.
        hold: final fraction of the training during which the multipliers stay fixed.
    """

    rate: float = Field(default=0.05, gt=0)
    average_last: float = Field(default=0.3, gt=0, le=1)
    warm_up: float = Field(default=0.2, ge=0, lt=0.5)
    hold: float = Field(default=0.2, ge=0, lt=0.5)

    def phases(self, steps: int) -> tuple[int, int]:
        """Return the training steps from which the multipliers move, and from which they stay fixed."""
        first = round(steps * self.warm_up)
        return first, max(first + 1, round(steps * (1 - self.hold)))
