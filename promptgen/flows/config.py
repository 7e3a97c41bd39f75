"""Architecture and training of a flow: the `flow` and `training` sections of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from promptgen.networks.micro_batches import MicroBatch, given
from promptgen.strict import Section

Estimator = Literal["path", "plain"]

LARGEST_DENSE = 8192
"""Most dimensions of a flow that moves all of them; its rotations hold the square of that."""


class FlowConfig(Section):
    """Architecture of a flow.

    Attributes:
        blocks: number of blocks.
        hidden: width of the hidden layer in each coupling network.
        log_scale_bound: largest absolute log-scale of a coupling, nats per dimension.
        parts: sizes of the parts of the latent, which sum to its dimension. Each part gets an independent flow of
            `blocks` blocks. None means one flow for the whole latent.
        rank: number of directions, besides those of the flows under it, that a flow trained with `method: reuse` moves;
            None chooses it by what the recorded gradients tell. See `promptgen.evaluations.directions`.
    """

    blocks: int = Field(default=8, ge=1, le=1000)
    hidden: int = Field(default=64, ge=1)
    log_scale_bound: float = Field(default=0.5, gt=0)
    parts: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=2)] | None = None
    rank: int | None = Field(default=None, ge=2)

    @model_validator(mode="after")
    def _rank_or_parts(self) -> Self:
        if self.rank is not None and self.parts is not None:
            raise ValueError("rank confines one flow to few directions, parts divides the latent: leave out one")
        return self

    def parameters(self, dim: int, context_dim: int = 0, held: int = 0) -> int:
        """Return how many parameters a `promptgen.flows.flow.Flow` of this size trains.

        Args:
            dim: coordinates of the latent.
            context_dim: coordinates of the condition.
            held: number of the last coordinates that the flow leaves as they are and takes as a condition.
        """

        def block(size: int) -> int:  # a scale and a shift per coordinate, and the coupling's network
            unchanged, moved = size // 2, size - size // 2
            return 2 * size + (unchanged + context_dim + held + 1) * self.hidden + (self.hidden + 1) * 2 * moved

        return self.blocks * sum(block(size) for size in self.parts or (dim - held,))


class TrainingConfig(Section):
    """How to train a flow on its own samples, each of which is used once.

    Attributes:
        method: "on_policy" uses the path gradient, "plain" the gradient of the published method; see
            `promptgen.flows.objective.reverse_kl`.
        steps: number of optimiser steps.
        batch: samples per step.
        learning_rate: learning rate of Adam at the first step; decays linearly to zero.
        clip: largest gradient norm; longer gradients are scaled down.
        checkpoint_every: steps between two states on disk.
        validate_every: steps between two held-out estimates of the loss.
        validation_samples: samples per held-out estimate, always from the same noise.
        micro_batch: samples per pass through the generator; null means the whole batch, and "auto" as many of it as
            fit on a GPU. It bounds the memory and changes the result by rounding only.
    """

    method: Literal["on_policy", "plain"] = "on_policy"
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    clip: float = Field(default=1.0, gt=0)
    checkpoint_every: int = Field(default=50, ge=1)
    validate_every: int = Field(default=50, ge=1)
    validation_samples: int = Field(default=256, ge=1)
    micro_batch: MicroBatch | None = None

    @property
    def estimator(self) -> Estimator:
        """Gradient estimator."""
        return "path" if self.method == "on_policy" else "plain"

    @property
    def at_once(self) -> int:
        """Number of samples per pass through the generator, if it is not as many as fit."""
        return min(given(self.micro_batch) or self.batch, self.batch)

    def validates(self, step: int) -> bool:
        """Return whether the held-out loss is estimated after `step` optimiser steps."""
        return step % self.validate_every == 0 or step == self.steps

    def samples(self, fit_samples: int, fixed_from: int = 0) -> dict[str, int]:
        """Return the number of samples that a training draws, by purpose.

        Args:
            fit_samples: samples of the final fit.
            fixed_from: step from which the energy no longer changes; the first held-out loss is estimated there.
        """
        first = min(fixed_from, self.steps)
        regular = self.steps // self.validate_every - (first - 1) // self.validate_every
        irregular = {step for step in (first, self.steps) if step % self.validate_every}
        validations = regular + len(irregular)
        return {
            "training": self.steps * self.batch,
            "choosing the best flow": validations * self.validation_samples,
            "judging the fit": fit_samples,
        }
