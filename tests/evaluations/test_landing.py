"""Multipliers of many samples against what they should solve, and residuals against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptgen.evaluations.landing import Residuals, one_hot, positive_shares, short_move, solve_multipliers

START = np.zeros(3)


def labels(*counts):
    return np.repeat(np.eye(len(counts)), counts, axis=0)


def tilted(predicted, counted, beta):
    weights = np.exp(predicted @ beta)
    return weights @ counted / weights.sum()


@pytest.mark.parametrize("target", [[1 / 3, 1 / 3, 1 / 3], [0.2, 0.3, 0.5], [0.98, 0.01, 0.01]])
def test_certain_labels_have_a_closed_form(target):
    certain = labels(700, 200, 100)
    beta = solve_multipliers(certain, np.array(target), START)
    expected = np.log(target) - np.log([0.7, 0.2, 0.1])
    np.testing.assert_allclose(beta, expected - expected.mean(), atol=1e-5)


def test_mean_probabilities_are_reached_by_their_tilt():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5000, 3)) * 2 + [1.0, 0.0, -1.0]
    predicted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = np.array([0.2, 0.3, 0.5])
    for start in (START, np.array([5.0, -3.0, 0.0])):
        beta = solve_multipliers(predicted, target, start)
        np.testing.assert_allclose(tilted(predicted, predicted, beta), target, atol=1e-6)
        assert beta.mean() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("counts", [(950, 50, 0), (1000, 0, 0), (999, 1, 0)])
def test_a_class_without_samples_leaves_finite_multipliers(counts):
    beta = solve_multipliers(labels(*counts), np.full(3, 1 / 3), START)
    assert np.isfinite(beta).all()
    if counts[1]:
        assert beta[1] > beta[0]


def test_a_rare_class_is_raised():
    certain = labels(9989, 10, 1)
    beta = solve_multipliers(certain, np.full(3, 1 / 3), START)
    np.testing.assert_allclose(tilted(certain, certain, beta), np.full(3, 1 / 3), atol=1e-6)


def test_corrected_shares_are_shares():
    kept = np.array([0.2, 0.3, 0.5])
    np.testing.assert_allclose(positive_shares(kept), kept)
    raised = positive_shares(np.array([-0.1, 0.4, 0.7]))
    assert raised.sum() == pytest.approx(1.0)
    assert 0 < raised[0] < 0.001
    assert raised[2] / raised[1] == pytest.approx(7 / 4)


def test_the_most_probable_class_counts():
    probabilities = torch.tensor([[0.4, 0.6], [0.9, 0.1]])
    assert one_hot(probabilities).tolist() == [[0, 1], [1, 0]]


def test_residuals_correct_a_biased_prediction():
    """A prediction that is 0.1 too high for a class: the correction recovers the share within its error."""
    rng = torch.Generator().manual_seed(0)
    chance = torch.rand(4000, generator=rng)
    long = (torch.rand(4000, generator=rng) < chance).float()
    counted = torch.stack([1 - long, long], dim=1)
    predicted = torch.stack([0.9 - chance, chance + 0.1], dim=1)
    residuals = Residuals.of(counted - predicted)
    difference = (counted - predicted).numpy()
    np.testing.assert_allclose(residuals.mean, difference.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(residuals.error, difference.std(axis=0, ddof=1) / np.sqrt(4000), rtol=1e-3)
    assert residuals.n == 4000
    assert abs(residuals.mean[1] + 0.1) < 4 * residuals.error[1]


def test_a_short_move_changes_the_shares_as_asked():
    rng = torch.Generator().manual_seed(0)
    free = torch.randn(2, 50, generator=rng, dtype=torch.float64)
    jacobian = torch.cat([free, -free.sum(dim=0, keepdim=True)])  # shares sum to 1
    change = torch.tensor([0.02, -0.05, 0.03], dtype=torch.float64)
    left = change - jacobian @ short_move(jacobian, change)
    assert float(left.norm()) < 0.2 * float(change.norm())


def test_what_only_a_long_move_would_change_is_left():
    """Two parameters: one changes shares by much, the other hardly does, and would have to move by 20."""
    jacobian = torch.tensor([[1.0, 0.001], [0.0, -0.002], [-1.0, 0.001]], dtype=torch.float64)
    strong, weak = short_move(jacobian, torch.tensor([-0.03, 0.04, -0.01], dtype=torch.float64)).tolist()
    assert strong == pytest.approx(-0.01, abs=0.002)
    assert abs(weak) < 0.01


def test_nothing_moves_where_no_parameter_changes_a_share():
    assert short_move(torch.zeros(2, 3), torch.tensor([0.1, -0.1])).tolist() == [0.0, 0.0, 0.0]
