"""The diffusion autoencoder reads the published layout and computes what the original networks computed."""

import pytest
import torch
from filling import assert_close, assert_kept, fixtures_of, part

from promptgen.errors import ModelFileError
from promptgen.generators.diffae.generator import load_diffae

IMAGE_TOLERANCE = 5e-4
"""After several steps of a sampler; a single evaluation of a network keeps to the usual tolerance."""

fixtures = pytest.mark.parametrize("fixture", fixtures_of("diffae"), scope="module")
pytestmark = pytest.mark.slow


class Callback:
    """What a training framework leaves in its files; were it unpickled, this would run."""

    def __reduce__(self):
        return (pytest.fail, ("code from a weight file was run",))


@pytest.fixture(scope="module")
def paths(fixture, tmp_path_factory):
    """Both files, the first as a training leaves it: with weights before averaging, and objects of its framework."""
    folder = tmp_path_factory.mktemp("published")
    names = [file["name"] for file in fixture.manifest["files"]]
    content = fixture.file_content()
    weights = content["state_dict"]
    trained = {key.removeprefix("ema_"): torch.zeros_like(weights[key]) for key in weights if key.startswith("ema_")}
    extra = {"state_dict": weights | trained, "callbacks": {Callback: {"monitor": None}, "best": Callback()}}
    torch.save(content | extra, folder / names[0])
    del content, weights, trained, extra
    yield folder / names[0], fixture.write_file(folder / names[1], 1)
    for name in names:
        (folder / name).unlink()


def schedule(words):
    """Read a schedule as the manifest writes it: "linear 1e-4..0.02, 1000", "constant 0.008, 1000"."""
    betas, length = words.split(" ", 1)[1].split(", ")
    first, _, last = betas.partition("..")
    return {"first": float(first), "last": float(last or first), "length": int(length)}


def arguments(fixture):
    """Return what the manifest says of the networks, as arguments of the loader."""
    published = fixture.hyper_parameters
    latent_network = dict(published["latent_network"])
    assert latent_network.pop("activation") == "silu"
    return {
        **published["image_network"],
        **{name: published[name] for name in ("image_size", "style_channels", "latent_steps")},
        "latent_network": latent_network,
        "image_steps": published["steps"],
        "latent": "code_and_noise",
        "image_schedule": schedule(published["schedules"]["image"]),
        "latent_schedule": schedule(published["schedules"]["latent"]),
    }


@pytest.fixture(scope="module")
def model(fixture, paths):
    return load_diffae(*paths, **arguments(fixture))


@pytest.fixture(scope="module")
def code(fixture):
    return fixture.expected["cond"]


def at_times(fixture, prefix):
    """Return expected arrays by name, with the time step that the name tells: 800 for eps_t800_stride2."""
    found = [name for name in fixture.expected if name.startswith(f"{prefix}_t")]
    assert found
    return [(name, int(name.removeprefix(f"{prefix}_t").split("_")[0])) for name in found]


@fixtures
@torch.no_grad()
def test_latent_network(fixture, model):
    for name, time in at_times(fixture, "latent_eps"):
        assert_close(model.network.latent_net(fixture.inputs["latent_noise"], time), fixture.expected[name])


@fixtures
@torch.no_grad()
def test_code(fixture, model, code):
    normalised = model.normalised_code(fixture.inputs["latent_noise"])
    assert_close(normalised, fixture.expected["cond_normalised"])
    assert_close(model.code(fixture.inputs["latent_noise"]), code)


@fixtures
@torch.no_grad()
def test_image_network(fixture, model, code):
    for name, time in at_times(fixture, "eps"):
        noise = model.network(fixture.inputs["x_T"], time, code)
        assert_close(part(noise, name), fixture.expected[name])


@fixtures
@torch.no_grad()
def test_encoder(fixture, model):
    assert_kept(fixture, "encoder_cond", model.encode((fixture.inputs["encoder_image"] + 1) / 2))


@fixtures
@torch.no_grad()
def test_image(fixture, model):
    latent = torch.cat([fixture.inputs[name].flatten(1) for name in ("latent_noise", "x_T")], dim=1)
    assert_kept(fixture, "image", 2 * model(latent) - 1, IMAGE_TOLERANCE)


@fixtures
def test_another_shape_names_the_first_difference(fixture, paths):
    layers = fixture.hyper_parameters["latent_network"]["layers"] + 1
    with pytest.raises(ModelFileError, match=r"missing: latent_net\.layers\..* and \d+ more"):
        load_diffae(*paths, **arguments(fixture) | {"latent_network": {"layers": layers}})
