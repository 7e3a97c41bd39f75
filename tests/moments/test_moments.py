import io
import math

import numpy as np
import pytest
import torch

from promptgen.energies.base import Sample
from promptgen.energies.moment import MomentEnergy
from promptgen.errors import DataError, InfeasibleTargetError, TooFewSamplesError
from promptgen.moments.ascent import MomentAscent
from promptgen.moments.config import DualConfig
from promptgen.moments.multipliers import fit_moments
from promptgen.seeding import stream

LABELS = ("a", "b", "c", "d", "e")


def one_hot(counts):
    return np.eye(len(counts))[np.repeat(np.arange(len(counts)), counts)]


def soft(seed, n, k, sharpness=2.0):
    logits = sharpness * np.random.default_rng(seed).normal(size=(n, k))
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True)


def test_known_answer_of_two_divisors():
    x = np.arange(64)
    features = np.stack([x % 2 == 0, x % 3 == 0], axis=1)
    fit = fit_moments(features, [0.8, 0.5], names=["even", "multiple of 3"])
    np.testing.assert_allclose(fit.beta, [1.3862944, 0.6466272], atol=5e-8)
    np.testing.assert_allclose(fit.achieved, [0.8, 0.5], atol=1e-12)
    assert fit.kl == pytest.approx(0.2441246, abs=5e-8)
    assert fit.ess_fraction == pytest.approx(0.663488, abs=5e-7)
    assert fit.n == 64


def test_known_answer_of_hard_labels():
    fit = fit_moments(one_hot([60, 10, 10, 10, 10]), np.full(5, 0.2), names=LABELS)
    expected = np.log(0.2 / np.array([0.6, 0.1, 0.1, 0.1, 0.1]))
    np.testing.assert_allclose(fit.beta, expected - expected.mean(), atol=1e-10)
    assert fit.kl == pytest.approx(0.3347953, abs=5e-8)
    assert fit.ess_fraction == pytest.approx(0.6)


def test_beta_reproduces_the_tilt_on_soft_features():
    gamma, mu = soft(0, 4000, 3), np.array([0.5, 0.3, 0.2])
    fit = fit_moments(gamma, mu, names=LABELS[:3])
    weights = np.exp(gamma @ fit.beta)
    weights /= weights.sum()
    np.testing.assert_allclose(weights @ gamma, mu, atol=1e-10)
    assert fit.kl == pytest.approx(np.sum(weights * np.log(4000 * weights)), abs=1e-10)
    assert fit.ess_fraction == pytest.approx(1 / np.sum(np.square(weights)) / 4000)


def test_single_precision_simplices_are_still_recognised():
    gamma = soft(1, 1000, 4).astype(np.float32)  # the rows sum to one up to 1e-7 only
    fit = fit_moments(gamma, np.full(4, 0.25), names=LABELS[:4])
    assert abs(fit.beta.sum()) < 1e-6
    assert np.abs(fit.beta).max() < 10


def test_two_attributes_are_met_jointly_with_mean_zero_in_each():
    rng = np.random.default_rng(2)
    first = rng.random(5000) < 0.3
    second = rng.random(5000) < np.where(first, 0.8, 0.1)  # strongly dependent: marginal fits would disturb each other
    gamma = np.concatenate([np.eye(2)[first.astype(int)], np.eye(2)[second.astype(int)]], axis=1)
    fit = fit_moments(gamma, [0.5] * 4, names=["a:0", "a:1", "b:0", "b:1"])
    np.testing.assert_allclose(fit.achieved, 0.5, atol=1e-10)
    np.testing.assert_allclose(fit.beta.reshape(2, 2).sum(axis=1), 0, atol=1e-10)


def test_an_intersection_is_one_simplex():
    counts = np.array([400, 300, 200, 100])
    fit = fit_moments(one_hot(counts), np.full(4, 0.25), names=["00", "01", "10", "11"])
    expected = np.log(0.25 / (counts / 1000))
    np.testing.assert_allclose(fit.beta, expected - expected.mean(), atol=1e-10)


def test_an_observed_target_needs_no_tilt():
    fit = fit_moments(one_hot([30, 70]), [0.3, 0.7], names=["a", "b"], bootstrap=20)
    np.testing.assert_allclose(fit.beta, 0, atol=1e-12)
    assert fit.kl == pytest.approx(0, abs=1e-12)
    assert fit.ess_fraction == pytest.approx(1)


@pytest.mark.parametrize("sharpness", [0.0, 3.0], ids=["hard", "soft"])
def test_bootstrap_interval_covers_the_true_multipliers(sharpness):
    # Hard: log-odds of a binomial. Soft: the fit to a huge sample is taken for the truth.
    def sample(seed, n):
        if sharpness:
            return soft(seed, n, 2, sharpness)
        return np.eye(2)[(np.random.default_rng(seed).random(n) < 0.2).astype(int)]

    target = [0.3, 0.7] if sharpness else [0.5, 0.5]
    truth = fit_moments(sample(0, 200_000), target, names=["a", "b"]).beta[1] if sharpness else math.log(4) / 2
    fits = [fit_moments(sample(world, 400), target, names=["a", "b"], bootstrap=100) for world in range(1, 101)]
    hits = sum(fit.beta_low[1] <= truth <= fit.beta_high[1] for fit in fits)
    assert 86 <= hits <= 100


def test_bootstrap_follows_the_seed():
    first, same, other = (
        fit_moments(one_hot([80, 20]), [0.5, 0.5], names=["a", "b"], bootstrap=50, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.beta_low, same.beta_low)
    assert (first.beta_low != other.beta_low).any()


def test_the_interval_is_unbounded_when_resamples_often_lose_a_class():
    fit = fit_moments(one_hot([98, 2]), [0.5, 0.5], names=["a", "b"], bootstrap=200)  # 13 % of them do
    assert np.isfinite(fit.beta).all()
    np.testing.assert_array_equal(fit.beta_high, np.inf)


@pytest.mark.parametrize(
    ("counts", "target", "message"),
    [
        ([90, 10, 0], [0.4, 0.3, 0.3], "target 0.3 of 'c' cannot be reached, observed share 0:"),
        ([50, 30, 20], [0.0, 0.5, 0.5], "target 0 of 'a' cannot be reached, observed share 0.5:"),
        ([50, 30, 20], [0.5, 0.3, 0.3], "a sum that is constant"),
    ],
    ids=["absent class", "class to be removed", "shares that do not sum to one"],
)
def test_infeasible_targets_name_class_and_share(counts, target, message):
    with pytest.raises(InfeasibleTargetError, match=message):
        fit_moments(one_hot(counts), target, names=["a", "b", "c"])


def test_a_target_outside_the_hull_but_inside_every_range_is_refused():
    gamma = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]] * 10)
    with pytest.raises(InfeasibleTargetError, match="outside what the samples span"):
        fit_moments(gamma, [0.6, 0.6], names=["a", "b"])


def test_the_floor_of_the_effective_sample_size_names_the_rare_class():
    gamma = one_hot([9990, 8, 2])
    with pytest.raises(InfeasibleTargetError, match=r"0.3333 of 'c' .* observed share 0.0002: the tilt"):
        fit_moments(gamma, np.full(3, 1 / 3), names=["a", "b", "c"])
    assert fit_moments(gamma, np.full(3, 1 / 3), names=["a", "b", "c"], ess_floor=0.0).ess_fraction < 0.01


def test_bad_arrays_are_refused():
    with pytest.raises(DataError, match="K targets and names"):
        fit_moments(one_hot([5, 5]), [0.5, 0.3, 0.2], names=["a", "b"])
    with pytest.raises(DataError, match="finite"):
        fit_moments([[np.nan, 1.0], [0.0, 1.0]], [0.5, 0.5], names=["a", "b"])
    with pytest.raises(TooFewSamplesError):
        fit_moments([[1.0, 0.0]], [0.5, 0.5], names=["a", "b"])


def test_as_dict_holds_plain_numbers_by_name():
    record = fit_moments(one_hot([80, 20]), [0.5, 0.5], names=["a", "b"]).as_dict()
    assert record["observed"] == {"a": 0.8, "b": 0.2}
    assert record["beta_low"] is None
    assert type(record["beta"]["a"]) is float
    assert record["n"] == 100


class Threshold(torch.nn.Module):
    """Two classes by the sign of the first number, with steep logits."""

    def __init__(self):
        super().__init__()
        self.attributes = {"side": ("left", "right")}

    def forward(self, image):
        logit = 4 * image.flatten(1)[:, 0]
        return {"side": torch.stack([-logit, logit], dim=1)}


class Response:
    """Stands in for a flow: samples of N(-1, 1) exactly tilted by the energy's current beta, by resampling."""

    def __init__(self, energy, batch):
        self.energy, self.batch = energy, batch

    def step(self, step):
        rng = stream(0, "response", step)
        pool = torch.randn(4096, 3, 1, 1, generator=rng) - 1
        with torch.no_grad():
            weights = (-self.energy(Sample(pool.flatten(1), pool))).softmax(dim=0)
        image = pool[torch.multinomial(weights, self.batch, replacement=True, generator=rng)].requires_grad_()
        sample = Sample(image.flatten(1), image)
        self.energy(sample)
        return sample


def ascend(steps, config=None, until=None, state=None, beta=None):
    """Run an ascent, or the part of one up to step `until`, or the part from `state` on."""
    energy = MomentEnergy(Threshold(), "side", beta)
    response, ascent = Response(energy, 64), MomentAscent(energy, [0.5, 0.5], steps=steps, config=config)
    start = 0
    if state is not None:
        start, content = state
        ascent.load_state_dict(content)
    history = []
    for step in range(start, until or steps):
        sample = response.step(step)
        history.append(ascent.update(sample, torch.zeros(64), step))
    return energy, ascent, history


def share_of_left(beta):
    pool = torch.randn(400_000, 3, 1, 1, generator=stream(1, "pool")) - 1
    energy = MomentEnergy(Threshold(), "side", beta)
    weights = (-energy(Sample(pool.flatten(1), pool))).softmax(dim=0)
    return float(weights[pool.flatten(1)[:, 0] < 0].sum())


def test_ascent_meets_the_hard_shares_that_the_dual_solution_misses():
    assert share_of_left([0.0, 0.0]) == pytest.approx(0.841, abs=0.005)
    dual = fit_moments(one_hot([841, 159]), [0.5, 0.5], names=["left", "right"]).beta
    assert share_of_left(dual) > 0.53  # the energy tilts by probabilities, which are less extreme than labels
    energy, ascent, _ = ascend(200, beta=dual)
    assert ascent.fixed
    assert share_of_left(energy.beta) == pytest.approx(0.5, abs=0.02)
    assert abs(float(energy.beta.sum())) < 1e-6


def test_beta_ends_as_the_average_of_the_last_ones_and_then_stays():
    config = DualConfig(rate=0.3, average_last=0.5, warm_up=0.1, hold=0.2)
    energy, _, history = ascend(100, config)
    track = [row["beta/side:left"] for row in history]
    moves = np.flatnonzero(np.diff(track)) + 1
    assert (moves[0], moves[-1]) == (10, 79)
    last = track[78] + 0.3 / 70 * (0.5 - history[79]["share/side:left"]) / 0.5  # the smallest step, before averaging
    assert track[79] == pytest.approx(np.mean([*track[45:79], last]))
    assert float(energy.beta[0]) == pytest.approx(track[99])


def test_ascent_starts_from_the_fitted_multipliers():
    _, _, history = ascend(100, DualConfig(rate=0.01, warm_up=0.1), until=11, beta=[-1.5, 1.5])
    assert history[9]["beta/side:left"] == -1.5
    assert 0 < abs(history[10]["beta/side:left"] + 1.5) < 0.03


def test_a_resumed_ascent_gives_the_same_numbers():
    whole, _, history = ascend(60)
    _, interrupted, first = ascend(60, until=40)
    buffer = io.BytesIO()
    torch.save(interrupted.state_dict(), buffer)
    buffer.seek(0)
    resumed, _, rest = ascend(60, state=(40, torch.load(buffer, weights_only=True)))
    assert first + rest == history
    assert torch.equal(whole.beta, resumed.beta)


def test_finalise_in_the_middle_fixes_the_present_multipliers():
    energy, ascent, history = ascend(100, until=25)
    ascent.finalise()
    ascent.finalise()
    assert ascent.fixed
    assert float(energy.beta[0]) == pytest.approx(history[-1]["beta/side:left"])


def test_rare_classes_move_by_their_relative_lack():
    energy = MomentEnergy(Threshold(), "side")
    ascent = MomentAscent(energy, [0.9, 0.1], steps=10, config=DualConfig(rate=1.0, warm_up=0))
    image = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 3, 1, 1).clone().requires_grad_()
    energy(Sample(image.flatten(1), image))  # shares 0.5 and 0.5
    ascent.update(Sample(image.flatten(1), image), torch.zeros(2), 0)
    lack = np.array([0.4 / 0.9, -0.4 / 0.1])
    np.testing.assert_allclose(energy.beta.numpy(), lack - lack.mean(), rtol=1e-6)


def test_wrong_targets_of_an_ascent_are_refused():
    energy = MomentEnergy(Threshold(), "side")
    with pytest.raises(DataError, match="side:left"):
        MomentAscent(energy, [0.2, 0.3, 0.5], steps=10)
    with pytest.raises(DataError, match="positive"):
        MomentAscent(energy, [0.0, 1.0], steps=10)
