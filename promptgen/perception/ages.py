"""Perceived age as an attribute of a few classes, of networks that give it in years or for every year of life."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from promptgen.errors import ConfigError

EDGES = (20, 40, 60)
"""Ages at which a new class begins, years."""


def age_labels(edges: Sequence[int]) -> tuple[str, ...]:
    """Return the labels of the classes between `edges`.

    Raises:
        ConfigError: there is no edge, or they are not increasing years between 1 and 99.

    Example:
        >>> age_labels((20, 40, 60))
        ('0-19', '20-39', '40-59', '60+')
    """
    bounds = (0, *edges, 100)
    if not edges or any(later <= earlier for earlier, later in itertools.pairwise(bounds)):
        raise ConfigError(f"ages are {list(edges)}, expected increasing years from 1 to 99, such as {list(EDGES)}")
    return (*(f"{first}-{last - 1}" for first, last in itertools.pairwise(bounds[:-1])), f"{edges[-1]}+")


def logits_of_years(years: Tensor, edges: Sequence[int], mean_error: float) -> Tensor:
    """Return the logits, (B, K), of the classes between `edges`, for estimated ages (B,) in years.

    A logit is the logarithm of the probability of the class under a logistic distribution whose centre is the estimate
    and whose mean absolute deviation is `mean_error`. The most probable class is that of the estimate, except within
    a fraction of a year of an edge.
    """
    scale = mean_error / (2 * math.log(2))
    bounds = (years[:, None] - years.new_tensor(list(edges))) / -scale  # (B, K - 1), standardised
    below, above = F.logsigmoid(bounds), F.logsigmoid(-bounds)
    # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)), without cancellation
    gaps = [math.log(-math.expm1((first - last) / scale)) for first, last in itertools.pairwise(edges)]
    between = below[:, 1:] + above[:, :-1] + years.new_tensor(gaps)
    return torch.cat([below[:, :1], between, above[:, -1:]], dim=1)


def logits_of_classes(logits: Tensor, edges: Sequence[int]) -> Tensor:
    """Return the logits, (B, K), of the classes between `edges`, for logits (B, N) of the ages 0 to N - 1 years.

    Classes are merged by adding their probabilities. `edges` are below N.
    """
    bounds = (0, *edges, logits.shape[1])
    return torch.stack([logits[:, first:last].logsumexp(1) for first, last in itertools.pairwise(bounds)], dim=1)
