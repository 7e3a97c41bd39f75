"""The protocol of an energy, and weighted sums of energies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sample:
    """A batch of samples, as the input of an energy.

    Attributes:
        latent: latents of the generator, (B, D).
        image: images, (B, 3, H, W), nominally in [0, 1].
        context: conditions of a conditional flow, (B, C), or None.
        anchor: images of the same noise at the null condition, (B, 3, H, W); only if an energy sets `needs_anchor`.
        rng: random stream for stochastic energies (augmentations); None means the energy's own fixed stream.
    """

    latent: Tensor
    image: Tensor
    context: Tensor | None = None
    anchor: Tensor | None = None
    rng: torch.Generator | None = None


class Energy(Protocol):
    """A control energy, low for the samples that are wanted: an `nn.Module` or any other callable.

    An energy that compares images with those at the null condition has an attribute ``needs_anchor = True``.

    Example:
        An energy that asks for dark images:

        >>> def brightness(sample: Sample) -> Tensor:
        ...     return 10 * sample.image.mean(dim=(1, 2, 3))
        >>> black_and_white = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
        >>> brightness(Sample(latent=torch.zeros(2, 5), image=black_and_white)).tolist()
        [0.0, 10.0]
    """

    def __call__(self, sample: Sample) -> Tensor:
        """Return the energy in nats, (B,)."""
        ...


@dataclass(frozen=True)
class Term:
    """One energy of a sum, with its weight."""

    energy: Energy
    weight: float = 1.0


class WeightedSum(nn.Module):
    """``E = sum_i weight_i E_i``: all terms are wanted. The sum is itself an energy, so sums nest.

    Args:
        terms: the energies by name; the names appear in logs and errors.

    Example:
        >>> def dark(sample: Sample) -> Tensor:
        ...     return sample.image.mean(dim=(1, 2, 3))
        >>> def centred(sample: Sample) -> Tensor:
        ...     return sample.latent.square().sum(dim=1)
        >>> energy = WeightedSum({"dark": Term(dark, weight=2.0), "centred": Term(centred)})
        >>> sample = Sample(latent=torch.full((1, 4), 0.5), image=torch.full((1, 3, 4, 4), 0.25))
        >>> {name: part.tolist() for name, part in energy.parts(sample).items()}
        {'dark': [0.5], 'centred': [1.0]}
        >>> energy(sample).tolist()
        [1.5]
    """

    def __init__(self, terms: Mapping[str, Term]) -> None:
        super().__init__()
        self.terms = dict(terms)
        self.needs_anchor = any(getattr(term.energy, "needs_anchor", False) for term in terms.values())
        self.modules_by_name = nn.ModuleDict(
            {name: term.energy for name, term in terms.items() if isinstance(term.energy, nn.Module)}
        )

    def parts(self, sample: Sample) -> dict[str, Tensor]:
        """Return the weighted terms in nats, (B,), by name."""
        return {name: term.weight * term.energy(sample) for name, term in self.terms.items()}

    def forward(self, sample: Sample) -> Tensor:
        """Return the weighted sum in nats, (B,); zero for an empty sum."""
        total = sample.latent.new_zeros(len(sample.latent))
        for part in self.parts(sample).values():
            total = total + part
        return total
