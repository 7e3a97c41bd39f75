"""face-api's networks on made-up weights: files, layout, gradients, and classes of age."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import logistic

from promptgen.errors import ConfigError, ModelFileError
from promptgen.perception.ages import age_labels, logits_of_classes, logits_of_years
from promptgen.perception.faceapi import (
    EXPRESSIONS,
    FaceAPIAgeGender,
    FaceAPIExpression,
    load_age_gender,
    load_expression,
)
from promptgen.seeding import stream
from tests.loading.tfjs_files import entry, write

NETWORKS = {"expression": (FaceAPIExpression, load_expression), "age and gender": (FaceAPIAgeGender, load_age_gender)}
each = pytest.mark.parametrize("name", NETWORKS)


def faces(side=112, n=2):
    return torch.rand(n, 3, side, side, generator=stream(0, "faces"))


def published(model):
    """The entries of a published file with the weights of a model, in TensorFlow's layout."""
    entries = []
    for key, value in model.state_dict().items():
        if value.ndim == 4:  # height, width, inputs, outputs; for each channel: height, width, channels, 1
            value = value.permute(2, 3, 0, 1) if key.endswith("depthwise_filter") else value.permute(2, 3, 1, 0)
        entries.append(entry(key.replace(".", "/"), value.numpy()))
    return entries


@each
def test_a_published_file_gives_the_network_back(name, tmp_path):
    make, load = NETWORKS[name]
    model = make(seed=3)
    manifest, (shard,) = write(tmp_path, published(model))
    loaded = load(manifest, shard)
    assert not loaded.train().training
    assert not any(value.requires_grad for value in loaded.parameters())
    for attribute, logits in model(faces()).items():
        torch.testing.assert_close(loaded(faces())[attribute], logits, rtol=0, atol=0)
        assert logits.shape == (2, len(model.attributes[attribute]))


@each
def test_other_files_are_refused(name, tmp_path):
    make, load = NETWORKS[name]
    entries = published(make())
    for changed, match in (
        (entries[1:], "missing"),
        ([*entries, entry("odd", np.zeros(2))], "unexpected: odd"),
        ([entry(entries[0][0]["name"], np.zeros((3, 3, 3, 31))), *entries[1:]], "of another shape"),
        ([*entries[:-1], entry("fc.bias", np.zeros(7))], "missing.*unexpected: fc/bias"),
    ):
        manifest, (shard,) = write(tmp_path, changed)
        with pytest.raises(ModelFileError, match=match) as caught:
            load(manifest, shard)
        assert str(manifest) in str(caught.value)


@each
def test_a_change_of_any_pixel_changes_the_logits(name):
    make, _ = NETWORKS[name]
    model = make()
    image = faces(n=1).requires_grad_()
    for attribute in model.attributes:
        logits = model(image)[attribute]
        (gradient,) = torch.autograd.grad((logits * torch.arange(1.0, 1 + logits.shape[1])).sum(), image)
        assert gradient.isfinite().all()
        assert (gradient != 0).float().mean() > 0.99


@each
@pytest.mark.parametrize("shape", [(64, 64), (300, 300), (90, 200)])
def test_images_of_any_size(name, shape):
    """A smooth picture gives nearly the same logits at any size, and a fine pattern is averaged before it shrinks."""
    make, _ = NETWORKS[name]
    model = make()

    def picture(height, width):
        rows = (torch.arange(height) + 0.5)[:, None] / height
        columns = (torch.arange(width) + 0.5)[None] / width
        return torch.stack([rows + 0 * columns, columns + 0 * rows, rows * columns])[None]

    for attribute, logits in model(picture(112, 112)).items():
        torch.testing.assert_close(model(picture(*shape))[attribute], logits, rtol=0.02, atol=0.02)
    board = (torch.arange(448)[:, None] + torch.arange(448)[None]).remainder(2).float().expand(1, 3, -1, -1)
    for attribute, logits in model(torch.full((1, 3, 112, 112), 0.5)).items():
        torch.testing.assert_close(model(board)[attribute], logits, rtol=0.05, atol=0.05)


def test_the_published_layout_has_these_sizes():
    """Bytes of the published shards: kernels and dense weights of one byte, biases of four."""
    for model, size in ((FaceAPIExpression(), 329_468), (FaceAPIAgeGender(), 429_708)):
        state = model.state_dict()
        assert sum(value.numel() * (4 if key.endswith("bias") else 1) for key, value in state.items()) == size


def test_classes_of_age_are_those_of_a_logistic_distribution():
    years = torch.tensor([-5.0, 3.0, 19.9, 20.1, 35.0, 50.0, 61.0, 130.0], dtype=torch.float64)
    probabilities = logits_of_years(years, (20, 40, 60), 4.54).exp()
    spread = logistic(loc=years[:, None].numpy(), scale=4.54 / (2 * np.log(2)))
    expected = np.diff(spread.cdf([-np.inf, 20, 40, 60, np.inf]))
    np.testing.assert_allclose(probabilities, expected, rtol=1e-9, atol=1e-15)
    assert probabilities.argmax(1).tolist() == [0, 0, 0, 1, 1, 2, 3, 3]
    draws = logistic(scale=4.54 / (2 * np.log(2))).rvs(200_000, random_state=0)
    assert abs(np.abs(draws).mean() - 4.54) < 0.05


def test_far_classes_of_age_have_finite_logits_and_gradients():
    years = torch.tensor([-1e4, 1e4], requires_grad=True)
    logits = logits_of_years(years, (20, 40, 60), 4.54)
    assert logits.isfinite().all()
    (gradient,) = torch.autograd.grad(logits[0, 3] + logits[1, 0], years)
    assert gradient[0] > 0 > gradient[1]


def test_ages_by_year_are_merged_by_their_probabilities():
    logits = torch.randn(3, 100, generator=stream(0, "ages"), dtype=torch.float64)
    merged = logits_of_classes(logits, (20, 40, 60)).softmax(1)
    single = logits.softmax(1)
    expected = torch.stack([part.sum(1) for part in single.split([20, 20, 20, 40], dim=1)], dim=1)
    torch.testing.assert_close(merged, expected)


SMILE = {"smiling": ["happy"], "other": [label for label in EXPRESSIONS if label != "happy"]}


def test_expressions_are_merged_by_their_probabilities(tmp_path):
    model = FaceAPIExpression(SMILE, seed=3)
    assert model.attributes == {"expression": ("smiling", "other")}
    happy = model.logits(faces()).softmax(1)[:, EXPRESSIONS.index("happy")]
    expected = torch.stack([happy, 1 - happy], dim=1)
    torch.testing.assert_close(model(faces())["expression"].softmax(1), expected)
    manifest, (shard,) = write(tmp_path, published(model))
    loaded = load_expression(manifest, shard, classes=SMILE)
    assert torch.equal(loaded(faces())["expression"], model(faces())["expression"])


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"all": EXPRESSIONS},
        {"smiling": ["happy"]},
        SMILE | {"grim": ["sad"]},
        SMILE | {"smiling": ["happy", "glad"]},
        SMILE | {"smiling": []},
    ],
)
def test_classes_that_leave_out_or_repeat_an_expression_are_refused(wrong):
    with pytest.raises(ConfigError, match="expected two or more that have each of"):
        FaceAPIExpression(wrong)


def test_labels_of_ages():
    assert age_labels([18]) == ("0-17", "18+")
    assert FaceAPIAgeGender(ages=[18, 65]).attributes["age"] == ("0-17", "18-64", "65+")
    for wrong in ([], [0], [30, 20], [20, 20], [100], [-5]):
        with pytest.raises(ConfigError, match="expected increasing years"):
            age_labels(wrong)


def test_the_manifest_of_another_network_is_refused(tmp_path):
    manifest, (shard,) = write(tmp_path, published(FaceAPIExpression()))
    with pytest.raises(ModelFileError, match="missing: entry_flow"):
        load_age_gender(manifest, shard)
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({"weightsManifest": content}))  # an object in place of a list
    load_expression(manifest, shard)
