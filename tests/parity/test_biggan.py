"""BigGAN-deep reads the published layout and computes what the original network computed."""

import json

import pytest
import torch
from filling import assert_close, decimals_of, fixtures_of, kept_of, part

from promptgen.errors import ModelFileError
from promptgen.generators.biggan.generator import load_biggan

fixtures = pytest.mark.parametrize("fixture", fixtures_of("biggan"), scope="module")


@pytest.fixture(scope="module")
def path(fixture, tmp_path_factory):
    """The two published files, beside each other."""
    folder = tmp_path_factory.mktemp("published")
    formats = [file["format"] for file in fixture.manifest["files"]]
    (folder / "some-config.json").write_text(json.dumps(fixture.file_content(formats.index("json"))))
    path = fixture.write_file(folder / "some-pytorch_model.bin", formats.index("torch.save"))
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def model(path):
    return load_biggan(path)


def at(model, truncation):
    """Return the model with another truncation, without reading the file again."""
    config = model.config.model_copy(update={"truncation": truncation})
    other = type(model)(config)
    other.load_state_dict(model.state_dict())
    other.freeze()
    return other


def latent(fixture, batch=None):
    return torch.cat([fixture.inputs["z"], fixture.inputs["y"]], dim=1)[:batch]


@fixtures
@torch.no_grad()
def test_class_embeddings_and_the_scale_of_their_prior(fixture, model):
    z_dim = fixture.hyper_parameters["z_dim"]
    assert_close(model.embed(fixture.inputs["class_index"]), fixture.expected["class_embedding"])
    scale = model.prior.scale
    assert_close(scale[z_dim:], fixture.expected["y_scale"].expand(fixture.inputs["y"].shape[1]))
    assert (scale[:z_dim] == 1).all()


@fixtures
@torch.no_grad()
def test_start_first_block_and_attention(fixture, model):
    ((name, truncation),) = decimals_of(fixture.expected, "z_scaled_").items()
    model = at(model, truncation)
    condition = model.conditioned(latent(fixture))
    z_dim = fixture.hyper_parameters["z_dim"]
    assert_close(condition[:, :z_dim], fixture.expected[name])
    start, *features = model.generator.features(condition)
    maps = {
        "gen_z": start,
        "layer0": features[0],
        "attention": features[fixture.hyper_parameters["attention_layer_position"]],
    }
    for key, result in maps.items():
        expected = fixture.expected[key]
        assert_close(result[:, : expected.shape[1]], expected)


@fixtures
@torch.no_grad()
def test_image_at_each_truncation(fixture, model):
    for name, truncation in decimals_of(fixture.expected, "image_trunc").items():
        truncated = at(model, truncation)
        for key in kept_of(fixture.expected, name):
            expected = fixture.expected[key]
            image = truncated(latent(fixture, len(expected)))
            assert_close(part(2 * image - 1, key), expected)


@fixtures
def test_another_size_names_the_first_difference(fixture, path):
    size = next(size for size in (512, 128) if size != fixture.hyper_parameters["output_dim"])
    with pytest.raises(ModelFileError, match=r"(missing|unexpected): generator\..* and \d+ more"):
        load_biggan(path, size=size)
