"""How well a flow fits: known weights, standard errors by simulation, tails of known shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import genpareto

from promptgen.errors import DataError
from promptgen.flows.fit import Fit, fit_statistics, tail_index, usable_tail
from promptgen.seeding import stream

ERRORS = {"log_z": "log_z_error", "kl_gap": "kl_gap_error", "ess_fraction": "ess_error"}


def gaussian_weights(shift, n, *names):
    """Return log weights of N(shift, 1) against proposals from N(0, 1): log Z is 0, the gap shift^2 / 2."""
    z = torch.randn(n, generator=stream(0, "test", *names), dtype=torch.float64)
    return shift * z - shift**2 / 2


def test_known_weights():
    weights = torch.tensor([1.0, 2.0, 3.0, 2.0], dtype=torch.float64)
    fit = fit_statistics(weights.log() + 1000.0)  # a constant that would overflow exp
    assert fit.log_z == pytest.approx(1000 + math.log(2.0))
    assert fit.log_z_bound == pytest.approx(1000 + math.log(12) / 4)
    assert fit.kl_gap == pytest.approx(fit.log_z - fit.log_z_bound)
    assert fit.ess_fraction == pytest.approx(64 / 18 / 4)
    assert fit.log_z_error == pytest.approx(float((weights / 2).std()) / 2)
    assert fit.n == 4
    assert fit.trust == "not to be trusted"  # four samples say nothing about a tail


def test_equal_weights():
    fit = fit_statistics(torch.full((70,), -3.0))
    assert fit.ess_fraction == pytest.approx(1.0)
    assert fit.kl_gap == pytest.approx(0.0, abs=1e-12)
    assert fit.log_z_error == pytest.approx(0.0, abs=1e-12)
    assert (fit.tail_index, fit.trust) == (None, "good")


def test_plain_numbers_have_intervals_that_stay_where_values_can_lie():
    fit = fit_statistics(gaussian_weights(0.02, 200))
    plain = fit.as_dict(0.9)
    assert set(plain) == {"log_z", "kl_gap", "ess_fraction", "tail_index", "trust", "n"}
    assert plain["log_z"]["high"] - plain["log_z"]["low"] == pytest.approx(2 * 1.644854 * fit.log_z_error)
    assert plain["kl_gap"]["low"] >= 0
    assert plain["ess_fraction"]["high"] <= 1
    assert (plain["trust"], plain["n"]) == ("good", 200)


@pytest.mark.parametrize("bad", [[], [float("nan")], [0.0, float("inf")]])
def test_what_has_no_answer_is_refused(bad):
    with pytest.raises(DataError, match="finite log weights"):
        fit_statistics(torch.tensor(bad))


def test_gaussian_target_is_met_within_its_errors():
    fit = fit_statistics(gaussian_weights(0.7, 4096))
    assert fit.log_z == pytest.approx(0.0, abs=4 * fit.log_z_error)
    assert fit.kl_gap == pytest.approx(0.245, abs=4 * fit.kl_gap_error)
    assert fit.ess_fraction == pytest.approx(math.exp(-0.49), abs=4 * fit.ess_error)


@pytest.mark.parametrize("name", ERRORS)
def test_standard_errors_are_the_spread_over_repetitions(name):
    fits = [fit_statistics(gaussian_weights(0.6, 1024, i)) for i in range(300)]
    spread = np.std([getattr(fit, name) for fit in fits])
    claimed = np.mean([getattr(fit, ERRORS[name]) for fit in fits])
    assert claimed == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("shape", [0.1, 0.4, 0.7, 1.1])
def test_tail_index_of_a_known_tail(shape):
    """The largest of many Pareto weights follow a generalised Pareto distribution of the same shape again."""
    rng = np.random.default_rng(1)
    found = [tail_index(torch.from_numpy(genpareto.rvs(shape, size=4000, random_state=rng)).log()) for _ in range(40)]
    # Ten pseudo-observations of 0.5 among the 190 of the tail; a single estimate spreads by (1 + shape) / sqrt(190).
    expected = (190 * shape + 10 * 0.5) / 200
    assert np.mean(found) == pytest.approx(expected, abs=4 * (1 + shape) / math.sqrt(190 * 40))


def test_tail_index_ignores_a_constant():
    log_w = gaussian_weights(1.0, 1000)
    assert tail_index(log_w + 500) == pytest.approx(tail_index(log_w))


@pytest.mark.parametrize(("shift", "trust"), [(0.3, "good"), (3.5, "not to be trusted")])
def test_verdict(shift, trust):
    assert fit_statistics(gaussian_weights(shift, 2048)).trust == trust


def test_between_good_and_bad_lies_usable_and_few_samples_need_a_lighter_tail():
    common = dict.fromkeys(("log_z", "log_z_error", "log_z_bound", "kl_gap", "kl_gap_error", "ess_error"), 0.0)
    assert Fit(**common, ess_fraction=0.5, tail_index=0.6, n=1000).trust == "usable"
    assert Fit(**common, ess_fraction=0.5, tail_index=0.6, n=100).trust == "not to be trusted"
    assert usable_tail(100) == pytest.approx(0.5)
    assert usable_tail(100_000) == 0.7


@pytest.mark.parametrize("spread", [10, 100, 1000, 100_000])
def test_weights_of_which_all_but_one_vanish_are_not_to_be_trusted(spread):
    """Steep energies spread log weights by thousands of nats, beside which no floating-point number stands."""
    fit = fit_statistics(torch.randn(1024, generator=stream(0, "steep"), dtype=torch.float64) * spread)
    assert fit.ess_fraction < 0.01
    assert fit.tail_index > 1
    assert fit.trust == "not to be trusted"


def test_one_weight_far_above_equal_ones_is_not_to_be_trusted():
    log_w = torch.zeros(1000)
    log_w[3] = 20.0
    fit = fit_statistics(log_w)
    assert (fit.tail_index, fit.trust) == (None, "not to be trusted")


def test_few_samples_need_a_light_tail_to_be_good():
    common = {"log_z": 0, "log_z_error": 0, "log_z_bound": 0, "kl_gap": 0, "kl_gap_error": 0, "ess_error": 0}
    assert Fit(**common, ess_fraction=0.5, tail_index=0.45, n=1000).trust == "good"
    assert Fit(**common, ess_fraction=0.5, tail_index=0.45, n=50).trust == "not to be trusted"
