"""Logic on energies, as densities: AND multiplies, OR adds, NOT divides.

    AND   E = sum_i weight_i E_i                    p proportional to prod_i exp(-weight_i E_i)
    OR    E = -log sum_i exp(-weight_i E_i)         p proportional to sum_i exp(-weight_i E_i)
    NOT   E = -bound * tanh(E_1 / bound)            p proportional to exp(E_1) where E_1 is small

Source: Nie, Vahdat, Anandkumar, *Controllable and Compositional Generation with Latent-Space Energy-Based Models*
(LACE), NeurIPS 2021, arXiv 2110.10873. A negated energy is bounded here: without a bound, ``exp(E)`` times the prior
need not be a density.
Each class here is itself an energy, so expressions nest.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from promptgen.energies.base import Energy, Sample, Term, WeightedSum
from promptgen.errors import ConfigError

AllOf = WeightedSum
"""AND: the weighted sum already says that every term is wanted."""


class AnyOf(WeightedSum):
    """OR: low where at least one term is low; ``min_i E_i - log n <= E <= min_i E_i`` for n terms.

    Args:
        terms: the alternatives by name.

    Raises:
        ConfigError: there is no term.
    """

    def __init__(self, terms: Mapping[str, Term]) -> None:
        if not terms:
            raise ConfigError("OR needs at least one energy, got none")
        super().__init__(terms)

    def forward(self, sample: Sample) -> Tensor:
        """Return the energy in nats, (B,)."""
        return -torch.logsumexp(-torch.stack(list(self.parts(sample).values())), dim=0)


class Not(nn.Module):
    """NOT: high where `energy` is low, and nearly constant once it is far above `bound`.

    Args:
        energy: energy of what is not wanted.
        bound: the result lies between -bound and bound, nats; positive.
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
