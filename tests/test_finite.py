"""Numbers that are no numbers are never counted: the first one stops the reading, by reader, attribute and sample."""

from __future__ import annotations

import math

import pytest
import torch

from promptgen.energies.base import Sample
from promptgen.errors import DataError
from promptgen.labels import features, hard_labels, probabilities
from promptgen.metrics.diversity import unit_vectors
from promptgen.metrics.estimate import mean_interval
from promptgen.metrics.features import check_features, image_features
from promptgen.metrics.pose import euler_angles
from promptgen.metrics.probabilities import check_probabilities
from promptgen.networks.finite import not_finite, require_finite, unclear
from promptgen.perception.reading import read_logits

BAD = [math.nan, math.inf, -math.inf]
bad = pytest.mark.parametrize("value", BAD)


class Reader:
    """A classifier that gives the mean of each image as a logit, and half of it as the other one."""

    attributes = {"light": ("dark", "bright"), "sky": ("clear", "grey")}  # noqa: RUF012

    def __call__(self, image):
        mean = image.mean(dim=(1, 2, 3))
        return {"light": torch.stack([mean / 2, mean], dim=1), "sky": torch.zeros(len(image), 2)}


def images(*values):
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, 4, 4)


@bad
def test_the_first_sample_with_a_bad_number_is_named(value):
    values = torch.zeros(5, 2, 3)
    assert require_finite(values, "they") is values
    values[3, 1, 2] = values[4, 0, 0] = value
    with pytest.raises(DataError, match=rf"they are {value} for sample 13, "):
        require_finite(values, "they", first=10)
    assert not_finite(values) == {3: str(value), 4: str(value)}


def test_whole_numbers_and_no_samples_are_finite():
    require_finite(torch.ones(3, 2, dtype=torch.int64), "they")
    require_finite(torch.ones(0, 2), "they")
    assert not_finite(torch.zeros(0, 3)) == {}


@bad
def test_logits_are_read_only_if_they_are_finite(value):
    assert set(read_logits(Reader(), images(0.1, 0.2), torch.zeros(2, 1), "the judge")) == {"light", "sky"}
    with pytest.raises(DataError, match=rf"the judge's logits of light are {value} for sample 66"):
        read_logits(Reader(), images(0.1, 0.2, value), torch.zeros(3, 1), "the judge", first=64)


@pytest.mark.parametrize(
    ("logits", "got"),
    [({"light": torch.zeros(2, 2)}, "none"), ({"light": torch.zeros(2, 2), "sky": torch.zeros(2, 3)}, r"\(2, 3\)")],
)
def test_logits_that_the_classifier_does_not_promise_are_refused(logits, got):
    class Other(Reader):
        def __call__(self, image):
            return logits

    with pytest.raises(DataError, match=rf"the judge must return logits of sky of shape \(2, 2\), got .*{got}"):
        read_logits(Other(), images(0.1, 0.2), torch.zeros(2, 1), "the judge")


@bad
@pytest.mark.parametrize(
    "read",
    [
        lambda logits: hard_labels(logits, "light"),
        lambda logits: probabilities(logits, "light x sky"),
        lambda logits: features(logits, ["sky", "light"], "hard"),
        lambda logits: features(logits, ["sky", "light"], "soft"),
    ],
)
def test_no_label_and_no_probability_is_made_of_a_bad_logit(read, value):
    logits = {"light": torch.tensor([[0.0, 1.0], [0.0, value]]), "sky": torch.zeros(2, 2)}
    with pytest.raises(DataError, match=rf"the logits of light are {value} for sample 1"):
        read(logits)
    sky = {"light": logits["light"], "sky": torch.zeros(2, 2)}
    assert hard_labels(sky, "sky").tolist() == [0, 0]  # which nobody asked of the other attribute


@bad
def test_what_is_unclear_is_named_by_attribute(value):
    logits = {"light": torch.tensor([[0.0, 1.0], [0.0, value]]), "sky": torch.tensor([[value, 0.0], [0.0, 0.0]])}
    assert unclear(logits) == {0: f"logits of sky are {value}", 1: f"logits of light are {value}"}


@bad
def test_metrics_name_the_bad_sample(value):
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [value, 0.0]])
    for check in (check_features, check_probabilities, unit_vectors):
        check(rows[:2])
        with pytest.raises(DataError, match="for sample 2"):
            check(rows)
    with pytest.raises(DataError, match="for sample 1"):
        euler_angles([torch.eye(3).tolist(), [[value] * 3] * 3])


@bad
def test_a_mean_names_the_bad_sample(value):
    with pytest.raises(DataError, match="for sample 1"):
        mean_interval([0.0, value], resamples=10, confidence=0.95, seed=0, name="x")


@bad
def test_features_count_on_over_batches(value):
    def network(image):
        return image.mean(dim=(2, 3))

    reading = image_features(network, [images(0.1, 0.2), images(0.3, value)])
    assert next(reading).shape == (2, 3)
    with pytest.raises(DataError, match=r"the pixels are .* for sample 3"):
        next(reading)


def test_a_feature_too_large_for_its_type_is_refused():
    with pytest.raises(DataError, match="features are inf for sample 0"):
        check_features(torch.tensor([[1e300]], dtype=torch.float64))


def test_an_embedding_of_length_zero_is_named():
    with pytest.raises(DataError, match="length 0 for sample 1"):
        unit_vectors([[1.0, 0.0], [0.0, 0.0]])


def test_an_energy_of_a_bad_logit_is_no_number():
    """In training the energy is checked, so that a flow that diverged is told from a classifier that fails."""
    from promptgen.energies.moment import MomentEnergy

    energy = MomentEnergy(Reader(), "light", beta=[-0.5, 0.5])
    assert energy(Sample(torch.zeros(2, 4), images(0.1, math.nan))).isnan().tolist() == [False, True]
