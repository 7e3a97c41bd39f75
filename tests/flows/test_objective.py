"""The objective against closed forms, and the two gradient estimators against each other."""

import math

import pytest
import torch
from linear_gaussian import LinearGenerator, Quadratic, box, closed_form
from torch import nn

from promptgen.energies.base import Sample, Term, WeightedSum
from promptgen.errors import DataError, NonFiniteEnergyError
from promptgen.flows.fit import fit_statistics
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.flows.objective import energy_parts, join, log_weight, reverse_kl
from promptgen.seeding import stream

SMALL = FlowConfig(blocks=2, hidden=8)
DIM = 4


def normal(n, *names, dim=DIM):
    return torch.randn(n, dim, generator=stream(0, *names), dtype=torch.float64)


def make_flow(size=0.0, context_dim=0, scale=None):
    flow = Flow(DIM, SMALL, box(context_dim), scale=scale, dtype=torch.float64)
    rng = stream(0, "perturb")
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += size * torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
    return flow


def gradient(flow, generator, energy, eps, estimator):
    loss = reverse_kl(flow, generator, energy, eps, estimator=estimator)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss.value, list(flow.parameters()))])


@pytest.mark.parametrize("scale", [None, torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)])
@pytest.mark.parametrize("estimator", ["path", "plain"])
def test_the_first_loss_is_the_mean_energy(estimator, scale):
    generator, energy, eps = LinearGenerator(DIM, scale=scale), Quadratic(), normal(64, "eps")
    loss = reverse_kl(make_flow(scale=scale), generator, energy, eps, estimator=estimator)
    latent = eps if scale is None else eps * scale
    expected = energy(Sample(latent, generator(latent)))
    torch.testing.assert_close(-loss.log_w, expected, atol=1e-9, rtol=0)
    assert loss.value.item() == pytest.approx(expected.mean().item(), abs=1e-9)


def test_the_estimators_have_the_same_value_and_log_weights():
    flow, generator, energy, eps = make_flow(0.3), LinearGenerator(DIM), Quadratic(), normal(64, "eps")
    path, plain = (reverse_kl(flow, generator, energy, eps, estimator=name) for name in ("path", "plain"))
    torch.testing.assert_close(path.log_w, plain.log_w, atol=1e-9, rtol=0)
    torch.testing.assert_close(path.value, plain.value, atol=1e-9, rtol=0)
    torch.testing.assert_close(log_weight(flow, generator, energy, eps), plain.log_w, atol=0, rtol=0)


def test_the_loss_of_a_new_flow_gives_the_closed_form_kl():
    generator, energy = LinearGenerator(DIM), Quadratic()
    mean, covariance, log_z = closed_form(generator, energy)
    prior = torch.distributions.MultivariateNormal(torch.zeros_like(mean), torch.eye(DIM, dtype=torch.float64))
    target = torch.distributions.MultivariateNormal(mean, covariance)
    kl = float(torch.distributions.kl_divergence(prior, target))
    log_w = log_weight(make_flow(), generator, energy, normal(200_000, "eps"))
    error = float(log_w.std()) / math.sqrt(len(log_w))
    assert -float(log_w.mean()) + log_z == pytest.approx(kl, abs=4 * error)
    assert fit_statistics(log_w).log_z == pytest.approx(log_z, abs=0.02)


def test_the_estimators_have_the_same_mean_gradient_on_a_gaussian_target():
    flow, generator, energy = make_flow(0.3), LinearGenerator(DIM), Quadratic()
    differences, sizes = [], []
    for i in range(50):
        eps = normal(2000, "eps", i)
        path, plain = (gradient(flow, generator, energy, eps, name) for name in ("path", "plain"))
        differences.append(path - plain)
        sizes.append(path)
    difference = torch.stack(differences)
    error = difference.std(dim=0) / math.sqrt(len(difference))
    score = difference.mean(dim=0) / error.clamp_min(1e-12)
    assert float(difference.abs().max()) > 1e-3  # they do differ on any one batch
    assert float(score.abs().max()) < 4.5
    assert float(score.square().mean()) == pytest.approx(1.0, abs=0.5)
    assert float(difference.mean(dim=0).norm() / torch.stack(sizes).mean(dim=0).norm()) < 0.01


def test_the_path_gradient_vanishes_at_the_optimum_and_the_plain_one_does_not():
    flow, generator = make_flow(0.3), LinearGenerator(DIM)
    fitted = make_flow(0.3)

    def ideal(sample):  # the energy whose target is exactly what the flow makes
        return generator.prior.log_prob(sample.latent) - fitted.log_prob(sample.latent)

    eps = normal(16, "eps")
    assert float(gradient(flow, generator, ideal, eps, "path").abs().max()) < 1e-10
    assert float(gradient(flow, generator, ideal, eps, "plain").abs().max()) > 1e-2
    fit = fit_statistics(log_weight(flow, generator, ideal, eps))
    assert fit.ess_fraction == pytest.approx(1.0)
    assert fit.kl_gap == pytest.approx(0.0, abs=1e-12)
    assert fit.log_z == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("estimator", ["path", "plain"])
def test_the_gradient_without_randomness_in_the_density_is_that_of_the_energy(estimator):
    """A shift of all latents has an exact gradient: that of ``E - log p`` along the shift."""
    flow, generator, energy, eps = make_flow(), LinearGenerator(DIM), Quadratic(), normal(4096, "eps")
    shift = next(parameter for name, parameter in flow.named_parameters() if name.endswith("shift"))
    (got,) = torch.autograd.grad(reverse_kl(flow, generator, energy, eps, estimator=estimator).value, shift)
    latent = eps.clone().requires_grad_()
    total = (energy(Sample(latent, generator(latent))) - generator.prior.log_prob(latent)).mean()
    (expected,) = torch.autograd.grad(total, latent)
    if estimator == "path":  # path: -log q pulls every sample away from the mean, zero on average
        expected = expected - eps / len(eps)
    torch.testing.assert_close(got, expected.sum(dim=0), atol=1e-9, rtol=0)


def test_the_generator_is_called_once():
    generator = LinearGenerator(DIM)
    reverse_kl(make_flow(), generator, Quadratic(), normal(8, "eps")).value.backward()
    assert generator.images == 8


def test_an_anchor_is_made_at_the_null_context_if_an_energy_asks_for_it():
    flow, generator, eps, context = (
        make_flow(0.3, context_dim=2),
        LinearGenerator(DIM),
        normal(8, "eps"),
        normal(8, "c"),
    )
    context = context[:, :2]

    class Likeness(nn.Module):
        needs_anchor = True

        def forward(self, sample):
            return (sample.image - sample.anchor).square().sum(dim=(1, 2, 3))

    energy = WeightedSum({"likeness": Term(Likeness(), 3.0)})
    loss = reverse_kl(flow, generator, energy, eps, context=context)
    torch.testing.assert_close(loss.sample.anchor, generator(flow(eps, torch.zeros(8, 2).double())[0]))
    assert torch.equal(loss.sample.context, context)
    assert generator.images == 24
    expected = 3 * (loss.sample.image - loss.sample.anchor).square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(loss.parts["likeness"], expected)
    assert reverse_kl(flow, generator, Quadratic(), eps, context=context).sample.anchor is None


def test_only_the_value_carries_a_gradient():
    loss = reverse_kl(make_flow(), LinearGenerator(DIM), Quadratic(), normal(8, "eps"))
    assert loss.value.requires_grad
    assert not loss.log_w.requires_grad
    assert not any(part.requires_grad for part in loss.parts.values())
    assert not loss.sample.image.requires_grad
    assert not loss.sample.latent.requires_grad


def test_energy_parts_are_named_and_weighted():
    generator, eps = LinearGenerator(DIM), normal(8, "eps")
    sample = Sample(eps, generator(eps))
    one, two = Quadratic(), Quadratic(width=2.0)
    both = WeightedSum({"one": Term(one, 2.0), "two": Term(two)})
    parts = energy_parts(both, sample)
    torch.testing.assert_close(parts["one"], 2 * one(sample))
    torch.testing.assert_close(sum(parts.values()), both(sample))
    torch.testing.assert_close(energy_parts(two, sample)["energy"], two(sample))
    assert torch.equal(energy_parts(WeightedSum({}), sample)["energy"], torch.zeros(8).double())


@pytest.mark.parametrize("shape", [(), (8, 1), (1,)])
def test_an_energy_of_a_wrong_shape_is_named(shape):
    eps = normal(8, "eps")
    energy = WeightedSum({"good": Term(Quadratic()), "odd": Term(lambda sample: sample.latent.new_zeros(shape))})
    with pytest.raises(DataError, match="energy odd"):
        reverse_kl(make_flow(), LinearGenerator(DIM), energy, eps)


def test_a_term_that_is_not_finite_is_named():
    def broken(sample):
        return torch.where(sample.latent[:, 0] > 0, torch.nan, 0.0).double()

    arguments = make_flow(), LinearGenerator(DIM)
    energy = WeightedSum({"good": Term(Quadratic()), "bad": Term(broken)})
    with pytest.raises(NonFiniteEnergyError, match=r"^energy bad became NaN"):
        log_weight(*arguments, energy, normal(8, "eps"))
    with pytest.raises(NonFiniteEnergyError, match=r"^the flow became NaN"):
        log_weight(*arguments, Quadratic(), normal(8, "eps") * torch.inf)


def test_joined_batches_are_the_whole_batch():
    flow, generator, eps = make_flow(0.3), LinearGenerator(DIM), normal(8, "eps")
    energy = WeightedSum({"one": Term(Quadratic()), "two": Term(Quadratic(width=2.0))})
    whole = reverse_kl(flow, generator, energy, eps)
    parts = join([reverse_kl(flow, generator, energy, part) for part in eps.split(3)])
    torch.testing.assert_close(parts.value, whole.value.detach())
    torch.testing.assert_close(parts.log_w, whole.log_w)
    torch.testing.assert_close(parts.parts, whole.parts)
    torch.testing.assert_close(parts.sample.image, whole.sample.image)
    assert parts.sample.anchor is None


def test_energies_draw_from_the_given_stream():
    def noisy(sample):
        return torch.randn(len(sample.latent), generator=sample.rng, dtype=torch.float64)

    arguments = make_flow(), LinearGenerator(DIM), noisy, normal(8, "eps")
    one, same, other = (log_weight(*arguments, rng=stream(0, name)) for name in ("a", "a", "b"))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
