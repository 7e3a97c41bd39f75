"""A generator, a reader or a network that fails on some samples ends a step: its numbers are neither drawn nor counted.

All of them fail on reddish pictures, so that most samples are sound.
"""

from __future__ import annotations

import re

import pytest
import torch

from promptgen.errors import DataError
from promptgen.flows.sampling import generate
from promptgen.tracking import NullTracker
from steps import fit_moments, sample
from steps.draw import Request, run
from steps.drawing.gallery import SAMPLES_NAME
from steps.shared.common import Pass
from tests import tiny
from tests.steps.projects import project_in

N, SEED = 200, 5


def fails(image):
    return image[:, 0].mean(dim=(1, 2)) > 0.9


class Generator(tiny.TinyGenerator):
    def __init__(self, value):
        super().__init__()
        self.value = float(value)

    def forward(self, latent, *, noise=None):
        image = super().forward(latent).clone()
        image[fails(image), 1] = self.value
        return image


class Classifier(tiny.TinyClassifier):
    def __init__(self, value, attribute="makeup"):
        super().__init__()
        self.value, self.attribute = float(value), attribute

    def __call__(self, image):
        logits = super().__call__(image)
        logits[self.attribute][fails(image), 1] = self.value
        return logits


def network(value, of):
    """Return the tiny network `of`, which fails on reddish pictures."""
    sound = getattr(tiny, of)()

    def failing(image):
        found = sound(image)
        found[fails(image)] = float(value)
        return found

    return failing


def custom(name, **arguments):
    return {"type": "custom", "factory": f"tests.steps.test_not_finite:{name}", "arguments": arguments}


def first_failure(stream, seed, n):
    """Return the number of the first reddish sample."""
    images = torch.cat([image for _, image in generate(tiny.TinyGenerator(), n, seed=seed, stream=stream)])
    return int(fails(images).nonzero()[0])


def project_with(folder, section, **values):
    content = tiny.params()
    content[section] = values["model"] if section == "generator" else content[section] | values
    return project_in(folder, content)


VALUES = pytest.mark.parametrize("value", ["nan", "inf", "-inf"])


@VALUES
def test_no_black_picture_is_drawn_for_pixels_that_are_no_numbers(tmp_path, value):
    project = project_with(tmp_path, "generator", model=custom("Generator", value=value))
    number = first_failure("draw", SEED, N)
    with pytest.raises(DataError, match=rf"generator's pixels are {value} for sample {number},"):
        run(Pass(project, 0), Request(n=N, out=tmp_path / "out", seed=SEED), NullTracker())
    assert not (tmp_path / "out" / SAMPLES_NAME).exists()
    assert not (tmp_path / "out" / f"{number:06d}.png").exists()


@VALUES
@pytest.mark.parametrize("reader", ["classifier", "judge"])
def test_no_label_is_written_for_logits_that_are_no_numbers(tmp_path, reader, value):
    project = project_with(tmp_path, "debias", **{reader: custom("Classifier", value=value)})
    number = first_failure("draw", SEED, N)
    with pytest.raises(DataError, match=rf"the {reader}'s logits of makeup are {value} for sample {number},"):
        run(Pass(project, 0), Request(n=N, out=tmp_path / "out", seed=SEED, labels=True), NullTracker())
    assert not (tmp_path / "out" / SAMPLES_NAME).exists()
    run(Pass(project, 0), Request(n=N, out=tmp_path / "unlabelled", seed=SEED), NullTracker())


@VALUES
@pytest.mark.parametrize(
    ("section", "key", "model", "named"),
    [
        ("debias", "classifier", {"name": "Classifier", "attribute": "hair"}, "the classifier's logits of hair are {}"),
        ("debias", "judge", {"name": "Classifier"}, "the judge's logits of makeup are {}"),
        ("evaluation", "identity", {"name": "network", "of": "embedder"}, "the identity network's embeddings are {}"),
        ("evaluation", "features", {"name": "network", "of": "colours"}, "the features are {}"),
        ("generator", "model", {"name": "Generator"}, "the generator's pixels are {}"),
    ],
)
def test_a_pass_is_not_measured_with_numbers_that_are_none(tmp_path, section, key, model, named, value):
    this = Pass(project_with(tmp_path, section, **{key: custom(**model, value=value)}), 0)
    number = first_failure("evaluate", this.seed, 512)
    with pytest.raises(DataError, match=re.escape(f"{named.format(value)} for sample {number},")):
        sample.run(this, NullTracker())
    assert not (this.folder("sample") / "samples.json").exists()


@VALUES
@pytest.mark.parametrize("training", [None, {"method": "reuse", "budget": {"images": 512}}])
def test_multipliers_are_not_fitted_to_numbers_that_are_none(tmp_path, training, value):
    content = tiny.params() | {"control": None}
    content["debias"] |= {"classifier": custom("Classifier", value=value, attribute="hair"), "dual": None}
    content["debias"]["training"] = training
    this = Pass(project_in(tmp_path, content), 1)
    where = "an image" if training else f"sample {first_failure('moments', this.seed, 512)}"
    with pytest.raises(DataError, match=re.escape(f"the classifier's logits of hair are {value} for {where},")):
        fit_moments.run(this, NullTracker())
    assert not (this.folder("fit_moments") / "moments.json").exists()


def test_a_truth_that_is_no_class_index_is_refused(tmp_path, monkeypatch):
    def truth(self, latent):
        return {"hair": torch.full((len(latent),), float("nan"))}

    monkeypatch.setattr(tiny.TinyGenerator, "truth", truth)
    with pytest.raises(DataError, match=r"the truth of hair must be class indices, got torch\.float32"):
        sample.run(Pass(project_in(tmp_path), 0), NullTracker())
