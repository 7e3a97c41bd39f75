"""How large a flow is, and how it is trained: the `flow` and `training` sections of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from promptgen.strict import Section

Estimator = Literal["path", "plain"]


class FlowConfig(Section):
    """Size of a flow.

    Attributes:
        blocks: number of blocks.
        hidden: width of the one hidden layer in each coupling's network.
        log_scale_bound: largest absolute log-scale of a coupling, nats per dimension.
        parts: sizes of the parts of the latent that have flows of their own, independent of each other, each of
            `blocks` blocks; they sum to the latent's dimension. None means one flow for the whole latent.
    """

    blocks: int = Field(default=8, ge=1)
    hidden: int = Field(default=256, ge=1)
    log_scale_bound: float = Field(default=2.0, gt=0)
    parts: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=2)] | None = None


class TrainingConfig(Section):
    """How a flow is trained.

    Attributes:
        steps: number of optimiser steps.
        batch: samples per step.
        learning_rate: of Adam, at the first step; falls linearly to zero.
        clip: largest norm of the gradient; a longer one is scaled down.
        estimator: of the gradient, "path" or "plain".
        checkpoint_every: steps between two states on disk.
        validate_every: steps between two held-out estimates of the loss.
        validation_samples: samples of each, always from the same noise.
        micro_batch: samples that go through the generator at a time; null means the whole batch. It bounds the memory
            and changes the result by rounding only, unless an energy draws.
    """

    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    clip: float = Field(default=1.0, gt=0)
    estimator: Estimator = "path"
    checkpoint_every: int = Field(default=50, ge=1)
    validate_every: int = Field(default=50, ge=1)
    validation_samples: int = Field(default=256, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)

    @property
    def at_once(self) -> int:
        """Samples that go through the generator at a time."""
        return min(self.micro_batch or self.batch, self.batch)

    def validates(self, step: int) -> bool:
        """Return whether the held-out loss is estimated after `step` optimiser steps."""
        return step % self.validate_every == 0 or step == self.steps

    def samples(self, fit_samples: int, fixed_from: int = 0) -> dict[str, int]:
        """Return how many samples a training draws, by their purpose.

        Args:
            fit_samples: samples of the final fit.
            fixed_from: step from which the energy no longer changes; the first held-out loss is that of this step.
        """
        first = min(fixed_from, self.steps)
        validations = sum(step == first or self.validates(step) for step in range(first, self.steps + 1))
        return {
            "training": self.steps * self.batch,
            "choosing the best flow": validations * self.validation_samples,
            "judging the fit": fit_samples,
        }
