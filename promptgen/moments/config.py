"""How multipliers follow a flow that is being trained: the `dual` section of params.yaml."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class DualConfig(BaseModel):
    """How the multipliers move while a flow is trained.

    Attributes:
        rate: part of a Newton step that one training step makes, at first; decays linearly to zero.
        average_last: part of the ascent, at its end, whose multipliers are averaged.
        warm_up: part of the training, at its start, during which the multipliers stay as fitted. The flow first has to
            follow them; moved meanwhile, they would overshoot by all that it still lacks.
        hold: part of the training, at its end, during which they stay fixed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: float = Field(default=0.05, gt=0)
    average_last: float = Field(default=0.3, gt=0, le=1)
    warm_up: float = Field(default=0.2, ge=0, lt=0.5)
    hold: float = Field(default=0.2, ge=0, lt=0.5)

    def phases(self, steps: int) -> tuple[int, int]:
        """Return the training steps from which the multipliers move, and from which they stay fixed."""
        first = round(steps * self.warm_up)
        return first, max(first + 1, round(steps * (1 - self.hold)))
