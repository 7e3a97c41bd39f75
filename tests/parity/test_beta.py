"""Published multipliers are read from their file; the reference's own fit is followed, and ours does no worse."""

import numpy as np
import pytest
import torch
from filling import assert_close, fixtures_of
from reference_beta import Optimiser, loss_and_gradient, tilted_mean

from promptgen.energies.base import Sample
from promptgen.energies.moment import MomentEnergy
from promptgen.errors import ConfigError, InfeasibleTargetError
from promptgen.moments.multipliers import fit_moments
from promptgen.perception.beta import load_beta, read_beta
from promptgen.perception.fairface import ATTRIBUTES

TOLERANCE = 1e-5
fixtures = pytest.mark.parametrize("fixture", fixtures_of("beta"), scope="module")


class Logits(torch.nn.Module):
    """A classifier whose images are its logits, the attributes side by side."""

    def __init__(self):
        super().__init__()
        self.attributes = ATTRIBUTES
        self.sizes = [len(labels) for labels in ATTRIBUTES.values()]

    def forward(self, image):
        return dict(zip(self.attributes, image.flatten(1).split(self.sizes, dim=1), strict=True))


@pytest.fixture(scope="module")
def path(fixture, tmp_path_factory):
    extra = {"module.gan_wrapper.mean_latent": torch.zeros(4), "epoch": 500}
    path = fixture.write_file(tmp_path_factory.mktemp("published") / "debias.bin", **extra)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def fitted(fixture):
    """Attributes of each fit that is given, by the name of the fit."""
    alone = {key: [key.removesuffix("_only_lambda")] for key in fixture.expected if key.endswith("_only_lambda")}
    files = [entry["key"].rpartition("class_type2lambda.") for entry in fixture.manifest["sections"]["state_dict"]]
    joint = {"joint_lambda": [name for _, found, name in files if found]}
    assert alone
    return {key.removesuffix("_lambda"): names for key, names in {**alone, **joint}.items() if key in fixture.expected}


@pytest.fixture(scope="module")
def soft(fixture):
    """Class probabilities by attribute."""
    return {name: logits.softmax(dim=1) for name, logits in Logits()(fixture.inputs["logits"]).items()}


@fixtures
@torch.no_grad()
def test_energy(fixture, path):
    compared = [key for key in fixture.expected if key.startswith("energy_")]
    assert compared
    for key in compared:
        attributes = list(read_beta(path)) if key == "energy_all" else [key.removeprefix("energy_")]
        images = fixture.inputs["logits"][: len(fixture.expected[key]), :, None, None]
        energy = MomentEnergy(Logits(), attributes, load_beta(path, ATTRIBUTES, attributes))
        assert_close(energy(Sample(images.flatten(1), images)), fixture.expected[key], TOLERANCE)


@fixtures
def test_loss_gradient_and_tilted_mean(fixture, soft):
    attributes = [key.removeprefix("lambda_") for key in fixture.inputs if key.startswith("lambda_")]
    assert attributes
    for name in attributes:
        given = fixture.inputs[f"lambda_{name}"]
        for point, beta in (("zero", torch.zeros_like(given)), ("given", given)):
            loss, gradient = loss_and_gradient([soft[name]], beta)
            assert_close(loss, fixture.expected[f"loss_{name}_{point}"], TOLERANCE)
            assert_close(gradient, fixture.expected[f"grad_{name}_{point}"], TOLERANCE)
        assert_close(tilted_mean(soft[name], given), fixture.expected[f"mu_hat_{name}_given"], TOLERANCE)


@fixtures
def test_the_path_of_the_reference(fixture, soft, fitted):
    published = fixture.hyper_parameters
    optimiser = Optimiser(published["steps"], published["schedule_steps"], published["learning_rate"])
    for fit, attributes in fitted.items():
        visited, losses = optimiser.path([soft[attribute] for attribute in attributes])
        kept = visited[[step - 1 for step in published["kept_steps"]]]
        torch.testing.assert_close(kept, fixture.expected[f"{fit}_lambda"], rtol=0, atol=5e-4)
        assert_close(losses, fixture.expected[f"{fit}_loss"], TOLERANCE)


def fit_uniform(gamma):
    """Return our multipliers, (K,), for uniform shares."""
    k = gamma.shape[1]
    names = [str(index) for index in range(k)]
    fit = fit_moments(gamma, np.full(k, 1 / k), names=names, ess_floor=0)
    np.testing.assert_allclose(fit.achieved, 1 / k, atol=1e-9)
    return torch.from_numpy(fit.beta)


@fixtures
def test_the_fit_is_no_worse_than_the_reference(fixture, soft, fitted):
    for fit, attributes in fitted.items():
        features = [soft[attribute].double() for attribute in attributes]
        reference = fixture.expected[f"{fit}_loss"].double().min()
        try:
            loss, _ = loss_and_gradient(features, torch.cat([fit_uniform(gamma) for gamma in features]))
        except InfeasibleTargetError:
            assert reference > 1e-6, "the reference has reached what is refused here"
        else:
            assert loss <= reference


@fixtures
def test_another_classifier_is_refused(path):
    name, beta = next(iter(read_beta(path).items()))
    with pytest.raises(ConfigError, match=r"has no multipliers for 'hair', only for \w+"):
        load_beta(path, ATTRIBUTES, ["hair"])
    with pytest.raises(
        ConfigError, match=f"has {len(beta)} multipliers for '{name}', but the classifier has 4 classes"
    ):
        load_beta(path, {name: ("a", "b", "c", "d")}, [name])
