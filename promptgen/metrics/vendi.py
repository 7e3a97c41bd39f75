"""How many different samples a set is worth: the Vendi score, a measure of variety that needs no reference.

    score = exp(-sum_i l_i log l_i)        with the eigenvalues l of K / N, K_ij = cos(x_i, x_j)

It is 1 where all samples are alike, N where no two have anything in common, and never more than the number of features.
It depends on the network, and on the number of samples: compare sets of one size.

D. Friedman and A. B. Dieng, "The Vendi score: a diversity evaluation metric for machine learning", TMLR 2023,
https://arxiv.org/abs/2210.02410
"""

from __future__ import annotations

import math
from statistics import NormalDist

import torch

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.estimate import Estimate
from promptgen.metrics.features import check_features
from promptgen.metrics.rows import Rows, random_subset


def vendi_score(features: Rows, *, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """Return the Vendi score of features, (N, D), with its interval; of a random subset if there are more than `PAIRS`.

    The interval is that of the delta method. With unit rows x and S = sum_i x_i x_i^T / N, which has the eigenvalues of
    K / N, the log of the score is -tr(S log S): the mean over the samples of h_i = -x_i^T (log S) x_i, which are its
    influence function up to a constant. So its standard error is the deviation of the h_i by sqrt(N), and the interval
    is normal on the scale of logs. It holds the mean score of samples of this number. With few samples for their
    features that is lower than the score of the distribution itself. In simulations of 95 % intervals, 89 to 96 %
    covered with 100 to 1,000 samples, the fewest with no more samples than features; with 30 samples it was 85 %.

    Args:
        features: one row per sample.
        confidence: probability that the interval covers.
        seed: seed of the subset.

    Raises:
        DataError: they are not (N, D), not finite, or a row is zero.
        TooFewSamplesError: there are fewer than two samples.

    Example:
        >>> round(vendi_score(torch.eye(3)).value, 6)
        3.0
    """
    rows = check_features(features[random_subset(len(features), seed, "vendi")]).double()
    n, dim = rows.shape
    if n < 2:
        raise TooFewSamplesError(f"a Vendi score needs at least 2 samples, got {n}")
    lengths = rows.norm(dim=1, keepdim=True)
    if not bool((lengths > 0).all()):
        raise DataError("the features of a sample are all zero, so that it has no cosine with another one")
    rows = rows / lengths
    if n > dim:  # the smaller of two matrices with the same eigenvalues
        values, vectors = torch.linalg.eigh(rows.T @ rows / n)
        parts = (rows @ vectors).square()  # (N, D), of each sample along each eigenvector; a row sums to 1
    else:
        values, vectors = torch.linalg.eigh(rows @ rows.T / n)
        parts = n * values.clamp(min=0) * vectors.square()  # (N, N)
    logs = values.clamp(min=torch.finfo(values.dtype).eps).log()
    terms = -(parts * logs).sum(dim=1)
    entropy, error = float(terms.mean()), float(terms.std()) / math.sqrt(n)
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * error
    largest = float(min(n, dim))
    value = min(max(math.exp(entropy), 1.0), largest)
    return Estimate(value, max(math.exp(entropy - half), 1.0), min(math.exp(entropy + half), largest))
