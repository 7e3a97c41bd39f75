import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from promptgen.moments.dual import solve_dual


def problem(seed, m=300, r=4):
    rng = np.random.default_rng(seed)
    deviations = rng.normal(size=(m, r)) ** 3  # heavy tails make the undamped Newton step overshoot
    return deviations, rng.dirichlet(np.ones(m))


@pytest.mark.parametrize("seed", range(5))
def test_minimum_agrees_with_scipy(seed):
    deviations, probabilities = problem(seed)
    solution = solve_dual(deviations, probabilities, np.zeros(4))
    theirs = minimize(lambda a: logsumexp(deviations @ a, b=probabilities), np.zeros(4), tol=1e-12)
    assert solution.value == pytest.approx(theirs.fun, abs=1e-9)
    np.testing.assert_allclose(solution.multipliers, theirs.x, atol=1e-4)


def test_moments_vanish_at_the_minimum_and_the_weights_are_the_tilt():
    deviations, probabilities = problem(7)
    solution = solve_dual(deviations, probabilities, np.zeros(4))
    np.testing.assert_allclose(solution.weights @ deviations, 0, atol=1e-10)
    tilt = probabilities * np.exp(deviations @ solution.multipliers)
    np.testing.assert_allclose(solution.weights, tilt / tilt.sum())


def test_the_start_does_not_matter():
    deviations, probabilities = problem(8)
    near, far = (solve_dual(deviations, probabilities, np.full(4, start)) for start in (0.0, 30.0))
    np.testing.assert_allclose(near.multipliers, far.multipliers, atol=1e-9)


@pytest.mark.parametrize("gap", [1.0, 1e-3, 0.0], ids=["far outside", "just outside", "on the boundary"])
def test_a_target_that_is_not_inside_the_hull_has_no_solution(gap):
    rng = np.random.default_rng(9)
    deviations = rng.normal(size=(200, 3))
    direction = np.array([1.0, 2.0, -1.0]) / np.sqrt(6)
    deviations -= (deviations @ direction).max() * direction + gap * direction
    assert solve_dual(deviations, np.full(200, 1 / 200), np.zeros(3)) is None


def test_a_target_just_inside_the_hull_is_found():
    deviations = np.array([[-0.999], [0.001]])
    solution = solve_dual(deviations, np.array([0.999, 0.001]), np.zeros(1))
    np.testing.assert_allclose(solution.weights, [0.001, 0.999])


def test_no_direction_to_move_in():
    solution = solve_dual(np.zeros((5, 0)), np.full(5, 0.2), np.zeros(0))
    assert solution.value == 0
    np.testing.assert_allclose(solution.weights, 0.2)
