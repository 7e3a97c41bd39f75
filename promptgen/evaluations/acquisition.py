"""Which samples to evaluate next: those about which a surrogate's members disagree, where that matters.

Fresh samples of a flow seldom show where the flow has too little mass, because there are few of them there; and such a
place makes single weights large. With mean E and standard deviation s of the predicted energy, estimates of the density
that are ``OPTIMISM`` deviations too high and too low differ by ``2 p exp(-E) sinh(OPTIMISM s)``. Samples are drawn in
proportion to this difference, from candidates of the flow and of the distribution that it starts from.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from promptgen.evaluations.objective import Objective
from promptgen.evaluations.prediction import OPTIMISM, Prediction
from promptgen.evaluations.proposal import Draw, Proposal, join
from promptgen.seeding import stream

CANDIDATES = 8192
"""Least number of candidates of each distribution."""

BLOCK = 2**22
"""Numbers in the latents of a block of candidates, which bounds the memory."""


@torch.no_grad()
def acquire(
    n: int, proposal: Proposal, start: Proposal, prediction: Prediction, objective: Objective, name: str
) -> Draw:
    """Return `n` samples to evaluate, with the flow's density as `log_q`.

    Args:
        n: number of samples.
        proposal: has the flow.
        start: the distribution that the flow starts from.
        prediction: the surrogate's prediction for these two.
        objective: what the flow is trained for.
        name: name of the random streams.
    """
    total = max(CANDIDATES, 4 * n)
    size = min(total, max(1, BLOCK // len(proposal.generator.prior.scale)))
    blocks = math.ceil(total / size)
    cuts = [n * block // blocks for block in range(blocks + 1)]
    parts = []
    for block, (first, last) in enumerate(pairwise(cuts)):
        candidates = proposal.mixed(start, size, "candidates", name, block)
        log_weight = _log_weight(candidates, prediction, objective)
        rng = stream(proposal.seed, "acquisition", name, block)
        # The largest of these sums are a sample without replacement (Gumbel's trick), however small the weights are.
        noise = -torch.empty(len(candidates), dtype=torch.float64).exponential_(generator=rng).log()
        parts.append(candidates[(log_weight.cpu() + noise).topk(last - first).indices.to(log_weight.device)])
    return join(parts)


def _log_weight(candidates: Draw, prediction: Prediction, objective: Objective) -> Tensor:
    """Return the logarithm of the difference that is to be resolved, relative to how often candidates are drawn."""
    mean, deviation = prediction.energies(prediction.seen(candidates), objective)
    log_mixture = torch.logaddexp(candidates.log_p, candidates.log_q)
    spread = OPTIMISM * deviation.double()
    return candidates.log_p - mean - log_mixture + spread + torch.log(-torch.expm1(-2 * spread))
