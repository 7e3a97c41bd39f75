"""Exact sampling from a flow that does not fit: corrected samples have the moments wanted, its own have not."""

import pytest
import torch
from linear_gaussian import LinearGenerator, Quadratic, box, closed_form

from promptgen.config.build import load_model
from promptgen.energies.moment import MomentEnergy
from promptgen.errors import NonFiniteEnergyError, TooFewSamplesError
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.exact import acceptance_rate, chain_log_weights, correct
from promptgen.flows.fit import fit_statistics
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.flows.objective import log_weight
from promptgen.flows.sampling import latent_blocks
from promptgen.flows.training import TrainingConfig, train_flow
from promptgen.labels import features
from promptgen.model_files import store
from promptgen.moments.multipliers import fit_moments
from promptgen.seeding import stream

M = 20_000


def noise(m=M, dim=4, name="proposals"):
    return torch.randn(m, dim, generator=stream(0, name), dtype=torch.float64)


@pytest.fixture(scope="module")
def rough():
    """A flow after few steps on the linear world, the world's energy, proposals, their latents and their weights."""
    generator, energy = LinearGenerator(), Quadratic()
    flow = Flow(4, FlowConfig(blocks=2, hidden=8), dtype=torch.float64)
    config = TrainingConfig(steps=15, batch=64, learning_rate=0.01, validation_samples=64)
    chain = ChainedGenerator(generator, train_flow(generator, energy, flow, config, seed=1, fit_samples=32).flow)
    eps = noise()
    return chain, energy, eps, chain.latent(eps), chain_log_weights(chain, energy, eps, seed=0, batch=5000)


def deviation(latents, mean, effective):
    """Return how far means are off, in standard errors of as many independent samples of the target, the worst one."""
    errors = latents.std(dim=0) / effective**0.5
    return float(((latents.mean(dim=0) - mean) / errors).abs().max())


@pytest.mark.parametrize("method", ["resample", "metropolis"])
def test_corrected_samples_have_the_moments_of_the_target_and_raw_ones_do_not(rough, method):
    chain, energy, _, latents, log_weights = rough
    mean, covariance, log_z = closed_form(chain.base, energy)
    found = correct(log_weights, M if method == "metropolis" else 2000, method, stream(3, "choose"))
    chosen = latents[found.chosen]
    effective = 1 / (1 / len(chosen) + 1 / found.effective)
    if method == "metropolis":  # where the chain stands still its states repeat
        effective = M * found.acceptance / (2 - found.acceptance)
    assert deviation(latents, mean, M) > 10
    assert deviation(chosen, mean, effective) < 4
    raw, corrected = (float((part.T.cov() - covariance).abs().max()) for part in (latents, chosen))
    assert corrected < 0.08 < raw / 3
    assert found.fit.log_z == pytest.approx(log_z, abs=4 * found.fit.log_z_error)
    assert found.fit.trust != "not to be trusted"
    assert 0.1 < found.fit.ess_fraction < 0.95


@pytest.mark.parametrize("method", ["resample", "metropolis"])
def test_a_perfect_flow_is_left_as_it_is(method):
    """With the energy that turns N(0, 1) into N(0, 1/4), a flow that halves its noise is exact."""
    flow = Flow(4, FlowConfig(blocks=2, hidden=8), scale=torch.full((4,), 0.5).double(), dtype=torch.float64)
    chain = ChainedGenerator(LinearGenerator(), flow)
    log_weights = chain_log_weights(chain, lambda sample: 1.5 * sample.latent.square().sum(dim=1), noise(500), seed=0)
    found = correct(log_weights, 500, method, stream(0, "choose"))
    assert found.acceptance == (1.0 if method == "metropolis" else None)
    assert found.distinct == 500
    assert found.effective == pytest.approx(500)
    assert found.fit.kl_gap == pytest.approx(0, abs=1e-9)
    assert found.doubts == []


def test_the_acceptance_rate_falls_with_the_fit(rough):
    chain, energy, eps, _, log_weights = rough
    untrained = ChainedGenerator(chain.base, Flow(4, FlowConfig(blocks=2, hidden=8), dtype=torch.float64))
    worse = chain_log_weights(untrained, energy, eps, seed=0, batch=5000)
    rates = [correct(weights, 10, "metropolis", stream(0, "a")).acceptance for weights in (worse, log_weights)]
    assert 0 < rates[0] < rates[1] < 1
    assert acceptance_rate(torch.tensor([0, 0, 2, 2])) == pytest.approx(1 / 3)
    assert acceptance_rate(torch.tensor([0])) is None


def test_states_of_a_chain_are_taken_at_even_distances():
    flat = torch.zeros(10)
    assert correct(flat, 5, "metropolis", stream(0, "a")).chosen.tolist() == [1, 3, 5, 7, 9]
    assert correct(flat, 3, "metropolis", stream(0, "a")).chosen.tolist() == [3, 6, 9]


def test_weights_do_not_depend_on_the_batch_and_hear_the_condition():
    flow = Flow(4, FlowConfig(blocks=2, hidden=8), box(2), dtype=torch.float64)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=stream(0, "weights"), dtype=torch.float64)
    chain, eps, told = ChainedGenerator(LinearGenerator(), flow), noise(20), noise(20, 2, "told")
    expected = log_weight(flow, chain.base, Quadratic(), eps, context=told)
    for batch in (1, 7, 64):
        found = chain_log_weights(chain, Quadratic(), eps, told, seed=0, batch=batch)
        torch.testing.assert_close(found, expected)
    assert not torch.allclose(chain_log_weights(chain, Quadratic(), eps, told.flip(0), seed=0), expected)


def test_progress_is_told():
    done = []
    chain = ChainedGenerator(LinearGenerator(), Flow(4, FlowConfig(blocks=2, hidden=8), dtype=torch.float64))
    chain_log_weights(chain, Quadratic(), noise(10), seed=0, batch=4, progress=done.append)
    assert done == [4, 8, 10]


def test_doubts_are_told():
    heavy = 4 * noise(2000, 1).squeeze(1)
    found = correct(heavy, 500, "resample", stream(0, "a"))
    untrusted, too_many = found.doubts
    assert untrusted.startswith("the weights are not to be trusted (tail index ")
    assert too_many.startswith(f"500 samples are more than the {found.effective:.0f} that the proposals are worth")
    assert found.distinct < 500
    assert found.as_dict()["doubts"] == found.doubts
    assert correct(torch.zeros(100), 50, "resample", stream(0, "a")).doubts == []


@pytest.mark.parametrize("n", [0, 11])
def test_a_number_that_proposals_cannot_give_is_refused(n):
    with pytest.raises(TooFewSamplesError, match=rf"\b{n} of 10 proposals"):
        correct(torch.zeros(10), n, "resample", stream(0, "a"))


def test_a_bad_energy_is_named():
    chain = ChainedGenerator(LinearGenerator(), Flow(4, FlowConfig(blocks=2, hidden=8), dtype=torch.float64))
    with pytest.raises(NonFiniteEnergyError, match="energy"):
        chain_log_weights(chain, lambda sample: sample.latent[:, 0] / 0, noise(4), seed=0)


@pytest.mark.long
@pytest.mark.slow
def test_corrected_samples_of_the_embedded_world_meet_the_constraint_better(tmp_path):
    """Shipped generator and classifier; three of four heads are to have long hair; a training that is far too short."""
    for name in ("world-generator", "world-classifier"):
        store.fetch(name, tmp_path)
    generator = load_model("world-generator", tmp_path, "generator", truncation=1.0)
    classifier, target, n = load_model("world-classifier", tmp_path, "classifier"), [0.25, 0.75], 384

    def shares(sampler, latents):
        with torch.inference_mode():
            parts = [features(classifier(sampler(part)), ["hair"], "soft") for part in latents.split(64)]
        return torch.cat(parts).double()

    prior = shares(generator, torch.cat(list(latent_blocks(generator.prior, n, 0, "moments"))))
    energy = MomentEnergy(classifier, "hair", kind="soft")
    energy.set_beta(fit_moments(prior.numpy(), target, names=energy.names).beta)
    flow = Flow(generator.prior.dim, FlowConfig(blocks=2, hidden=32), scale=generator.prior.scale)
    config = TrainingConfig(steps=12, batch=32, learning_rate=0.005, clip=50.0, validation_samples=32)
    chain = ChainedGenerator(generator, train_flow(generator, energy, flow, config, seed=0, fit_samples=32).flow)
    eps = torch.cat(list(latent_blocks(chain.prior, n, 0, "proposals")))
    raw, log_weights = shares(chain, eps)[:, 1], chain_log_weights(chain, energy, eps, seed=0)
    assert float(prior[:, 1].mean()) < 0.5
    assert fit_statistics(log_weights).trust == "good"
    for method in ("resample", "metropolis"):
        found = correct(log_weights, n, method, stream(0, method))
        off = abs(float(raw[found.chosen].mean()) - 0.75)
        assert off < abs(float(raw.mean()) - 0.75) / 2
        assert off < 4 * (0.75 * 0.25 * (2 / found.effective + 1 / n)) ** 0.5  # multipliers have an error, too
