"""The contract of an energy, and weighted sums of energies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sample:
    """What an energy may look at.

    Attributes:
        latent: latents of the generator, (B, D).
        image: images, (B, 3, H, W), nominally in [0, 1].
        context: conditions of a conditional flow, (B, C), or None.
        anchor: images of the same eps at the null context, (B, 3, H, W); made only if an energy has `needs_anchor`.
        rng: random stream for energies that draw (augmentations); None means a fixed stream of the energy's own.
    """

    latent: Tensor
    image: Tensor
    context: Tensor | None = None
    anchor: Tensor | None = None
    rng: torch.Generator | None = None


class Energy(Protocol):
    """Low where a sample is wanted. An `nn.Module` or any callable; `needs_anchor` may be left out (False)."""

    def __call__(self, sample: Sample) -> Tensor:
        """Return the energy in nats, (B,)."""
        ...


@dataclass(frozen=True)
class Term:
    """One energy of a sum, with its weight."""

    energy: Energy
    weight: float = 1.0


class WeightedSum(nn.Module):
    """``E = sum_i weight_i E_i``; itself an energy, so sums nest.

    Args:
        terms: the energies by name; the names appear in logs and errors.
    """

    def __init__(self, terms: Mapping[str, Term]) -> None:
        super().__init__()
        self.terms = dict(terms)
        self.needs_anchor = any(getattr(term.energy, "needs_anchor", False) for term in terms.values())
        self.modules_by_name = nn.ModuleDict(
            {name: term.energy for name, term in terms.items() if isinstance(term.energy, nn.Module)}
        )

    def parts(self, sample: Sample) -> dict[str, Tensor]:
        """Return each weighted term in nats, (B,), by name."""
        return {name: term.weight * term.energy(sample) for name, term in self.terms.items()}

    def forward(self, sample: Sample) -> Tensor:
        """Return the weighted sum in nats, (B,); zero for an empty sum."""
        total = sample.latent.new_zeros(len(sample.latent))
        for part in self.parts(sample).values():
            total = total + part
        return total
