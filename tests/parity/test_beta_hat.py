"""Multipliers and moment energy against the reference's: same energy, same optimum, reached without its 500 steps."""

import numpy as np
import pytest
import torch
from filling import assert_close, fixtures_of

from promptgen.energies.base import Sample
from promptgen.energies.moment import MomentEnergy
from promptgen.moments import fit_moments
from promptgen.perception.labels import feature_names, features

SLICES = {"race": slice(0, 7), "gender": slice(7, 9), "age": slice(9, 18)}
ATTRIBUTES = {name: tuple(str(label) for label in range(part.stop - part.start)) for name, part in SLICES.items()}

fixtures = pytest.mark.parametrize("fixture", fixtures_of("beta-hat"))


class Logits(torch.nn.Module):
    """A classifier whose images are its logits."""

    def __init__(self):
        super().__init__()
        self.attributes = ATTRIBUTES

    def forward(self, image):
        return {name: image.flatten(1)[:, part] for name, part in SLICES.items()}


def logits_of(fixture):
    return Logits()(fixture.inputs["logits"])


@fixtures
@pytest.mark.parametrize(("expected", "chosen"), [("energy_race", ["race"]), ("energy_all", list(SLICES))])
def test_energy(fixture, expected, chosen):
    published = fixture.section("state_dict")
    beta = torch.cat([published[f"module.class_type2lambda.{name}"] for name in chosen])
    images = fixture.inputs["logits"][:32, :, None, None]
    energy = MomentEnergy(Logits(), chosen, beta)(Sample(images.flatten(1), images))
    assert_close(energy, fixture.expected[expected])


@fixtures
def test_the_tilt_has_the_reference_moments(fixture):
    gamma = features(logits_of(fixture), ["race"], "soft").double()
    weights = (gamma @ fixture.inputs["lambda_race"].double()).softmax(dim=0)
    assert_close(weights @ gamma, fixture.expected["mu_hat_race_given"].double())


@fixtures
def test_the_fit_is_where_the_reference_ends(fixture):
    gamma = features(logits_of(fixture), ["race"], "soft").double()
    fit = fit_moments(gamma, np.full(7, 1 / 7), names=feature_names(ATTRIBUTES, ["race"]))
    reference = fixture.expected["race_only_lambda"][-1].double().numpy()
    np.testing.assert_allclose(fit.beta, reference - reference.mean(), atol=5e-4)


@fixtures
def test_the_joint_fit_meets_every_attribute(fixture):
    chosen = list(SLICES)
    gamma = features(logits_of(fixture), chosen, "soft").double()
    target = np.concatenate([np.full(len(labels), 1 / len(labels)) for labels in ATTRIBUTES.values()])
    fit = fit_moments(gamma, target, names=feature_names(ATTRIBUTES, chosen))
    np.testing.assert_allclose(fit.achieved, target, atol=1e-9)
