"""How a flow is trained on evaluations that are kept: the `training` section of params.yaml with `method: reuse`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from promptgen.flows.config import TrainingConfig
from promptgen.networks.micro_batches import CPU_BATCH, MicroBatch, given
from promptgen.strict import Section

FORWARD_UNITS, GRADIENT_UNITS = 1, 3
"""Cost of an image in forward passes through the generator: alone, and with a gradient to its latent."""

ROUNDS = 2
"""Most rounds in which the surrogate is refined."""

EXPLORE_GRADIENTS, REFINE_GRADIENTS = 1 / 2, 1 / 4
"""Fractions of the units of exploring and of a round that are spent on images with a gradient. Gradients show which
directions matter; along these few, three images without a gradient teach a surrogate more than one with it."""

LEAST_BUDGET = 512

SHARD_SIZE = 256
"""Records in a shard; a killed run evaluates at most as many images again."""

FOLDER_NAME, IDENTITY_NAME = "evaluations", "store.json"
"""Folder of an experiment's stores, and the file in each that tells whose images it holds."""


class Budget(Section):
    """What a training may cost, in images or in minutes.

    Attributes:
        images: forward passes through the generator; an image with a gradient counts as three.
        minutes: minutes of making images. They are converted to images by the speed of the first ones, so results
            depend on the machine.
    """

    images: int | None = Field(default=None, ge=LEAST_BUDGET)
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
        budget: what the training may cost; everything else has defaults that need no tuning.
        ess: effective sample size, as a fraction of the samples, at which the surrogate needs no more refining.
        micro_batch: images at a time, which bounds the memory; "auto" for as many as fit on a GPU, and `CPU_BATCH` on a
            CPU.
    """

    method: Literal["reuse"] = "reuse"
    budget: Budget = Budget(images=8192)
    ess: float = Field(default=0.7, gt=0, lt=1)
    micro_batch: MicroBatch = "auto"

    @property
    def at_once(self) -> int:
        """Number of samples per pass through the generator, if it is not as many as fit."""
        return given(self.micro_batch) or CPU_BATCH


def shared_records(n: int, kept: int) -> int:
    """Return how many of the first `n` samples of a stream are in the store if the first `kept` are: whole shards."""
    return n if n == kept else min(n, kept) // SHARD_SIZE * SHARD_SIZE


@dataclass(frozen=True)
class Stage:
    """Images of a stage of a training.

    Attributes:
        gradients: images with a gradient.
        values: images without.
    """

    gradients: int
    values: int

    @classmethod
    def of(cls, units: int, fraction: float) -> Stage:
        """Return the images that cost `units` forward passes, of which `fraction` are spent on gradients.

        Example:
            >>> Stage.of(1200, 0.5)
            Stage(gradients=200, values=600)
        """
        gradients = int(fraction * units) // GRADIENT_UNITS
        return cls(gradients, units - GRADIENT_UNITS * gradients)

    def __len__(self) -> int:
        return self.gradients + self.values

    @property
    def units(self) -> int:
        """Cost of the images, in forward passes."""
        return GRADIENT_UNITS * self.gradients + FORWARD_UNITS * self.values

    def dense(self) -> Stage:
        """Return as many images with a gradient as cost the same, for energies that depend on all directions."""
        return Stage(self.units // GRADIENT_UNITS, 0)


@dataclass(frozen=True)
class Allotment:
    """Images of each stage of a training.

    Attributes:
        explore: from the distribution that the flow starts from.
        refine: of each round, mostly from the flow.
        land: for the correction of predicted shares, without gradients; 0 without target shares.
        fit: for the final fit, without gradients.
    """

    explore: Stage
    refine: Stage
    land: int
    fit: int

    @classmethod
    def of(cls, units: int, fit: int, *, differentiable: bool, lands: bool) -> Allotment:
        """Divide a budget: after `fit`, equal parts for exploring, refining and, towards target shares, landing.

        Args:
            units: the budget, in forward passes.
            fit: images of the final fit; at most half of the budget is spent on it.
            differentiable: whether exploring and refining take gradients.
            lands: whether there are target shares.

        Example:
            >>> Allotment.of(8192, 1024, differentiable=False, lands=False)
            Allotment(explore=Stage(gradients=0, values=3584), refine=Stage(gradients=0, values=1792), land=0, fit=1024)
        """
        fit = fit_images(units, fit)
        part = (units - fit) // (3 if lands else 2)
        explore = Stage.of(part, EXPLORE_GRADIENTS * differentiable)
        refine = Stage.of(part // ROUNDS, REFINE_GRADIENTS * differentiable)
        return cls(explore, refine, part if lands else 0, fit)


def fit_images(units: int, fit: int) -> int:
    """Return how many of the wanted `fit` images of the final fit a budget allows: at most half of it."""
    return min(fit, units // 2)


def _reuse_by_default(value: Any) -> Any:
    return {"method": "reuse", **value} if isinstance(value, dict) else value


AnyTraining = Annotated[ReuseConfig | TrainingConfig, Field(discriminator="method"), BeforeValidator(_reuse_by_default)]
"""The `training` section; `method` tells how, and is "reuse" if it is left out."""
