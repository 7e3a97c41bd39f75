"""Logic on energies, as densities: AND multiplies, OR adds, NOT divides.

    AND   E = sum_i weight_i E_i                    p proportional to prod_i exp(-weight_i E_i)
    OR    E = -log sum_i exp(-weight_i E_i)         p proportional to sum_i exp(-weight_i E_i)
    NOT   E = -bound * tanh(E_1 / bound)            p proportional to exp(E_1) where E_1 is small

Source: Nie, Vahdat, Anandkumar, *Controllable and Compositional Generation with Latent-Space Energy-Based Models*
(LACE), NeurIPS 2021, arXiv 2110.10873. Unlike there, a negated energy is bounded: without a bound, ``exp(E)`` times the
prior is not always normalisable.
AND is `promptgen.energies.base.WeightedSum`. All three are energies themselves, so expressions nest.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from promptgen.energies.base import Energy, Sample, Term, WeightedSum
from promptgen.errors import ConfigError


class AnyOf(WeightedSum):
    """OR: low if at least one term is low; ``min_i E_i - log n <= E <= min_i E_i`` for n terms.

    Args:
        terms: the alternatives by name.

    Raises:
        ConfigError: there are no terms.

    Example:
        >>> def black(sample: Sample) -> Tensor:
        ...     return 50 * sample.image.mean(dim=(1, 2, 3))
        >>> def white(sample: Sample) -> Tensor:
        ...     return 50 * (1 - sample.image.mean(dim=(1, 2, 3)))
        >>> either = AnyOf({"black": Term(black), "white": Term(white)})
        >>> images = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(-1, 3, 4, 4)
        >>> energies = either(Sample(torch.zeros(3, 2), images)).tolist()
        >>> [abs(round(energy, 2)) for energy in energies]  # grey: 25 - log(2)
        [0.0, 24.31, 0.0]
    """

    def __init__(self, terms: Mapping[str, Term]) -> None:
        if not terms:
            raise ConfigError("OR needs at least one energy, got none")
        super().__init__(terms)

    def forward(self, sample: Sample) -> Tensor:
        """Return the energy in nats, (B,)."""
        return -torch.logsumexp(-torch.stack(list(self.parts(sample).values())), dim=0)


class Not(nn.Module):
    """NOT: high if `energy` is low, and nearly constant if `energy` is far above `bound`.

    Args:
        energy: energy of the samples that are not wanted.
        bound: largest absolute value of the result, nats; positive.

    Raises:
        ConfigError: the bound is not positive.

    Example:
        >>> def distance(sample: Sample) -> Tensor:
        ...     return sample.latent.norm(dim=1)
        >>> energy = Not(distance, bound=5.0)
        >>> latents = torch.tensor([[0.0], [1.0], [100.0]])
        >>> [round(value, 2) for value in energy(Sample(latents, torch.zeros(3, 3, 1, 1))).tolist()]
        [-0.0, -0.99, -5.0]
    """

    def __init__(self, energy: Energy, bound: float) -> None:
        super().__init__()
        if not bound > 0:
            raise ConfigError(f"the bound of NOT must be a positive number of nats, got {bound}")
        self.energy = energy
        self.bound = bound
        self.needs_anchor = bool(getattr(energy, "needs_anchor", False))

    def forward(self, sample: Sample) -> Tensor:
        """Return the energy in nats, (B,), within -bound and bound."""
        return -self.bound * torch.tanh(self.energy(sample) / self.bound)
