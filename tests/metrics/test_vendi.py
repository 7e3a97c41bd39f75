"""The Vendi score: known answers, both ways of computing it, and how often its interval covers."""

import math

import numpy as np
import pytest
import torch

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.vendi import vendi_score


def normal(n, scales, seed):
    """Return features, (N, D), normal around zero with these standard deviations."""
    return torch.randn(n, len(scales), generator=torch.Generator().manual_seed(seed)) * torch.tensor(scales)


def test_samples_that_are_alike_count_as_one():
    score = vendi_score(torch.tensor([[1.0, 2.0, 3.0]]).repeat(50, 1))
    assert (score.value, score.low, score.high) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize(("n", "dim"), [(5, 5), (5, 20)])
def test_samples_with_nothing_in_common_count_each(n, dim):
    score = vendi_score(7 * torch.eye(n, dim))
    assert (score.value, score.low, score.high) == pytest.approx((n, n, n))


def test_groups_of_equal_samples_count_as_their_number_of_groups_by_entropy():
    """Orthogonal groups with shares p have the eigenvalues p."""
    shares = [0.5, 0.3, 0.2]
    features = torch.cat([torch.eye(5)[i].repeat(round(100 * share), 1) for i, share in enumerate(shares)])
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    score = vendi_score(features)
    assert score.value == pytest.approx(expected)
    # the multinomial entropy's standard error: sqrt(sum p log^2 p - H^2) / sqrt(n)
    entropy = math.log(expected)
    error = math.sqrt(sum(share * math.log(share) ** 2 for share in shares) - entropy**2) / math.sqrt(99)
    assert math.log(score.high) - entropy == pytest.approx(1.959964 * error)


@pytest.mark.parametrize(("n", "dim"), [(40, 6), (6, 40)])
def test_it_is_the_entropy_of_the_kernel_s_eigenvalues(n, dim):
    features = normal(n, [1.0 + i % 3 for i in range(dim)], seed=1)
    rows = features.double().numpy() / np.linalg.norm(features.double().numpy(), axis=1, keepdims=True)
    values = np.linalg.eigvalsh(rows @ rows.T / n)
    values = values[values > 1e-12]
    score = vendi_score(features)
    assert score.value == pytest.approx(math.exp(-(values * np.log(values)).sum()))
    assert 1 <= score.low < score.value < score.high <= min(n, dim)


def test_neither_length_nor_order_of_the_samples_matters():
    features = normal(30, [1.0, 2.0, 3.0], seed=2)
    other = (features * torch.linspace(0.1, 9, 30)[:, None]).flip(0)
    assert vendi_score(other).value == pytest.approx(vendi_score(features).value, rel=1e-6)


@pytest.mark.parametrize(
    ("n", "scales", "least"),
    [(200, [3.0, 1.0, 1.0, 0.5], 0.92), (100, [2.0] * 5 + [1.0] * 15, 0.9), (100, [2.0] * 120, 0.85)],
)
def test_the_interval_covers_the_mean_score_of_samples_of_this_number(n, scales, least):
    scores = [vendi_score(normal(n, scales, seed)) for seed in range(300)]
    mean = np.mean([score.value for score in scores])
    covered = np.mean([score.low <= mean <= score.high for score in scores])
    assert least <= covered <= 0.99


def test_what_has_no_score_is_refused():
    with pytest.raises(TooFewSamplesError, match="at least 2 samples, got 1"):
        vendi_score(torch.ones(1, 3))
    with pytest.raises(DataError, match="all zero"):
        vendi_score(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    with pytest.raises(DataError, match="the features are nan"):
        vendi_score(torch.tensor([[math.nan, 0.0], [1.0, 0.0]]))
