"""How a flow is trained on evaluations that are kept: the `training` section of params.yaml with `method: reuse`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from promptgen.strict import Section


class Budget(Section):
    """What a training may cost, in images or in minutes.

    Attributes:
        images: forward passes through the generator; an image with a gradient counts as three.
        minutes: minutes of making images, converted to images by the speed of the first ones; results then depend on
            the machine.
    """

    images: int | None = Field(default=None, ge=512)
    minutes: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.images is None) == (self.minutes is None):
            raise ValueError("give either images or minutes, such as `budget: {images: 8192}`")
        return self


class ReuseConfig(Section):
    """How a flow is trained on evaluations that are kept.

    Attributes:
        method: "reuse".
        budget: what the training may cost.
        ess: effective sample size, as a fraction of the samples, at which the flow is good enough.
    """

    method: Literal["reuse"] = "reuse"
    budget: Budget = Budget(images=8192)
    ess: float = Field(default=0.7, gt=0, lt=1)
