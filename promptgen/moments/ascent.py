"""Adjust the multipliers of a moment constraint while a flow is trained on them.

A flow trained on the tilt of `promptgen.moments.multipliers.fit_moments` still falls short of the target: it cannot
follow a steep energy exactly, and mean probabilities are not shares of labels. `MomentAscent` therefore moves the
multipliers during the training by the difference between the target and the shares of the flow's own samples.

The reference code of Wu et al., *Generative Visual Prompt*, NeurIPS 2022, has no ascent, but a factor of 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from promptgen.energies.base import Sample
from promptgen.energies.moment import MomentEnergy
from promptgen.errors import DataError
from promptgen.moments.config import DualConfig
from promptgen.networks.distributed import mean


class MomentAscent:
    """Dual ascent on the flow's own samples: ``beta_k += rate (mu_k - s_k) / (weight mu_k)``, s the batch's shares.

    At ``s = mu`` this is the Newton direction of the dual for hard labels, so one rate suits any number of classes,
    including rare ones. The mean of each simplex is subtracted after each step.

    The ascent starts from the multipliers of the energy (the dual solution), waits for the flow to catch up, moves them
    with decaying steps, and finally fixes them at the average of the last ones. From then on the flow is trained on a
    single distribution, against which its fit is measured. Losses from before `fixed` is true belong to others.

    Args:
        energy: the tilt, whose beta is adjusted.
        target: target shares, (K,), all positive.
        steps: total number of training steps.
        config: step size and phases.

    Raises:
        DataError: there is not one positive share per multiplier.

    Example:
        All samples of a training step are dark and half of them should be bright, so the multiplier of "bright" rises:

        >>> class Reader:
        ...     attributes = {"light": ("dark", "bright")}
        ...     def __call__(self, image):
        ...         brightness = image.mean(dim=(1, 2, 3))
        ...         return {"light": torch.stack([0.5 - brightness, brightness - 0.5], dim=1)}
        >>> energy = MomentEnergy(Reader(), "light")
        >>> ascent = MomentAscent(energy, [0.5, 0.5], steps=10, config=DualConfig(rate=0.1, warm_up=0))
        >>> sample = Sample(torch.zeros(4, 2), torch.full((4, 3, 1, 1), 0.2, requires_grad=True))
        >>> _ = energy(sample)  # counts the labels
        >>> numbers = ascent.update(sample, torch.zeros(4), step=0)
        >>> numbers["share/light:dark"], round(numbers["beta/light:bright"], 6)
        (1.0, 0.1)
    """

    def __init__(
        self, energy: MomentEnergy, target: ArrayLike, *, steps: int, config: DualConfig | None = None
    ) -> None:
        self.energy = energy
        self.config = config or DualConfig()
        self.target = torch.as_tensor(target, dtype=torch.float64)
        if self.target.shape != energy.beta.shape:
            raise DataError(
                f"the target has {self.target.numel()} shares, expected one for each of {', '.join(energy.names)}"
            )
        if not bool((self.target > 0).all()):
            raise DataError(f"target shares must be positive, got {self.target.tolist()}")
        self.first, self.end = self.config.phases(steps)
        self.averaged_from = self.end - max(1, round((self.end - self.first) * self.config.average_last))
        self.beta = energy.beta.detach().cpu().double()
        self.total = torch.zeros_like(self.beta)
        self.averaged = 0
        self.fixed = False
        energy.forget_shares()

    def update(self, sample: Sample, log_w: Tensor, step: int) -> Mapping[str, float]:
        """Move the multipliers by the difference between the target and the shares of the last training step.

        Args:
            sample: samples of the step; unused, because the energy has counted the labels of all micro-batches.
            log_w: their log weights, nats; unused, because the constraint is on the flow's own samples.
            step: index of the step, from 0.

        Returns:
            The shares of the step and the multipliers, under ``share/NAME`` and ``beta/NAME``.
        """
        shares = mean(self.energy.take_shares())
        if step >= self.first and not self.fixed:
            rate = self.config.rate * (1 - (step - self.first) / (self.end - self.first)) / self.energy.weight
            parts = torch.split(rate * (self.target - shares) / self.target, list(self.energy.sizes))
            self.beta = self.beta + torch.cat([part - part.mean() for part in parts])
            self.energy.set_beta(self.beta)
            if step >= self.averaged_from:
                self.total = self.total + self.beta
                self.averaged += 1
        if step + 1 >= self.end:
            self.finalise()
        numbers = {"share": shares, "beta": self.beta}
        return {
            f"{kind}/{name}": float(value)
            for kind, values in numbers.items()
            for name, value in zip(self.energy.names, values, strict=True)
        }

    def finalise(self) -> None:
        """Fix the multipliers at the average of the last ones. Calling this again changes nothing."""
        if self.averaged and not self.fixed:
            self.beta = self.total / self.averaged
            self.energy.set_beta(self.beta)
        self.fixed = True

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which a restarted training resumes with identical numbers."""
        return {"beta": self.beta, "total": self.total, "averaged": self.averaged, "fixed": self.fixed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state_dict` and pass its multipliers to the energy."""
        self.beta, self.total = state["beta"].clone(), state["total"].clone()
        self.averaged, self.fixed = int(state["averaged"]), bool(state["fixed"])
        self.energy.set_beta(self.beta)
        self.energy.forget_shares()
