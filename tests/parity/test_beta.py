"""Published multipliers are read from their file; the reference's own fit is followed, and ours does no worse."""

import numpy as np
import pytest
import torch
from filling import assert_close, fixtures_of
from reference_beta import Optimiser, loss_and_gradient, tilted_mean

from promptgen.energies.base import Sample
from promptgen.energies.moment import MomentEnergy
from promptgen.errors import ConfigError
from promptgen.moments import fit_moments
from promptgen.perception.beta import load_beta, read_beta

TOLERANCE = 1e-5
fixtures = pytest.mark.parametrize("fixture", fixtures_of("beta-hat"), scope="module")
attribute_sets = pytest.mark.parametrize(("name", "only"), [("race_only", ["race"]), ("joint", None)])


class Logits(torch.nn.Module):
    """A classifier whose images are its logits, the attributes side by side."""

    def __init__(self, sizes):
        super().__init__()
        self.attributes = {name: tuple(f"class {index}" for index in range(size)) for name, size in sizes.items()}
        self.sizes = list(sizes.values())

    def forward(self, image):
        return dict(zip(self.attributes, image.flatten(1).split(self.sizes, dim=1), strict=True))


@pytest.fixture(scope="module")
def path(fixture, tmp_path_factory):
    extra = {"module.gan_wrapper.mean_latent": torch.zeros(4), "epoch": 500}
    return fixture.write_file(tmp_path_factory.mktemp("published") / "debias.bin", **extra)


@pytest.fixture(scope="module")
def classifier(path):
    return Logits({name: len(beta) for name, beta in read_beta(path).items()})


@pytest.fixture(scope="module")
def soft(fixture, classifier):
    """Class probabilities by attribute."""
    logits = classifier(fixture.inputs["logits"])
    return {name: values.softmax(dim=1) for name, values in logits.items()}


@fixtures
@torch.no_grad()
@pytest.mark.parametrize(("expected", "only"), [("energy_race", ["race"]), ("energy_all", None)])
def test_energy(fixture, path, classifier, expected, only):
    chosen = only or list(classifier.attributes)
    images = fixture.inputs["logits"][: len(fixture.expected[expected]), :, None, None]
    beta = load_beta(path, classifier.attributes, chosen)
    energy = MomentEnergy(classifier, chosen, beta)(Sample(images.flatten(1), images))
    assert_close(energy, fixture.expected[expected], TOLERANCE)


@fixtures
def test_loss_and_gradient(fixture, soft):
    given = fixture.inputs["lambda_race"]
    for name, beta in (("zero", torch.zeros_like(given)), ("given", given)):
        loss, gradient = loss_and_gradient([soft["race"]], beta)
        assert_close(loss, fixture.expected[f"loss_race_{name}"], TOLERANCE)
        assert_close(gradient, fixture.expected[f"grad_race_{name}"], TOLERANCE)
    assert_close(tilted_mean(soft["race"], given), fixture.expected["mu_hat_race_given"], TOLERANCE)


@fixtures
@attribute_sets
def test_the_path_of_the_reference(fixture, soft, name, only):
    published = fixture.hyper_parameters
    optimiser = Optimiser(published["steps"], published["schedule_steps"], published["learning_rate"])
    visited, losses = optimiser.path([soft[attribute] for attribute in only or soft])
    kept = visited[[step - 1 for step in published["kept_steps"]]]
    torch.testing.assert_close(kept, fixture.expected[f"{name}_lambda"], rtol=0, atol=5e-4)
    assert_close(losses, fixture.expected[f"{name}_loss"], TOLERANCE)


def fit_uniform(gamma):
    k = gamma.shape[1]
    return torch.from_numpy(fit_moments(gamma, np.full(k, 1 / k), names=[str(index) for index in range(k)]).beta)


@fixtures
@attribute_sets
def test_the_fit_is_no_worse_than_the_reference(fixture, soft, name, only):
    features = [soft[attribute].double() for attribute in only or soft]
    betas = [fit_uniform(gamma) for gamma in features]
    loss, _ = loss_and_gradient(features, torch.cat(betas))
    assert loss <= fixture.expected[f"{name}_loss"].min().double()


@fixtures
def test_another_classifier_is_refused(path, classifier):
    with pytest.raises(ConfigError, match=r"has no multipliers for 'hair', only for race"):
        load_beta(path, classifier.attributes, ["hair"])
    with pytest.raises(ConfigError, match=r"multipliers for 'race', the classifier 3 classes"):
        load_beta(path, {"race": ("a", "b", "c")}, ["race"])
