"""FairFace reads the published layout and computes what the original network computed."""

import pytest
import torch
from filling import assert_close, assert_kept, fixtures_of

from promptgen.perception.fairface import load_fairface
from promptgen.perception.networks import imagenet_input

fixtures = pytest.mark.parametrize("fixture", fixtures_of("fairface"), scope="module")


@pytest.fixture(scope="module")
def model(fixture, tmp_path_factory):
    path = fixture.write_file(tmp_path_factory.mktemp("published") / "fairface.pt")
    model = load_fairface(path, fixture.manifest["notes"]["labels"], fixture.hyper_parameters["architecture"])
    path.unlink()
    return model


@fixtures
def test_preprocessing(fixture):
    assert_kept(fixture, "preprocessed", imagenet_input(fixture.inputs["image"]))


@fixtures
@torch.no_grad()
def test_logits(fixture, model):
    logits = model.logits(fixture.inputs["image"])
    assert logits.shape[1] == fixture.hyper_parameters["num_outputs"]
    assert_close(logits, fixture.expected["logits"])


@fixtures
@torch.no_grad()
def test_logits_by_attribute(fixture, model):
    logits = model(fixture.inputs["image"])
    assert set(logits) == set(model.attributes)
    for name, values in logits.items():
        assert values.shape[1] == len(model.attributes[name])
        assert_close(values, fixture.expected[name])
