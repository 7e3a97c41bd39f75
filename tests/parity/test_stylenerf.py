"""StyleNeRF reads the published layout and computes what the original network computed."""

import numpy as np
import pytest
import torch
from filling import assert_close, fixtures_of, part
from persistent import persistent_file

from promptgen.generators.stylenerf.generator import load_stylenerf
from promptgen.generators.stylenerf.rays import Camera

fixtures = pytest.mark.parametrize("fixture", fixtures_of("stylenerf"), scope="module")

MEAN_ERROR = 1e-4
PIXEL_ERROR = 0.02
"""Of what is re-sampled: rounding moves single samples along a ray, whose bins can be tiny."""


@pytest.fixture(scope="module")
def path(fixture, tmp_path_factory):
    """A file as its training leaves it."""
    tensors = fixture.section(fixture.manifest["files"][0]["tree"]["G_ema"].removeprefix("@"))
    folder = tmp_path_factory.mktemp("published")
    settings = fixture.hyper_parameters["init_kwargs"]
    return persistent_file(folder / "network.pkl", tensors, settings)


@pytest.fixture(scope="module")
def rendered(fixture, path):
    """Styles, rendering and images at the truncation asked for, with or without re-sampling."""
    done = {}

    def run(truncation=0.7, resample=None):
        if (truncation, resample) not in done:
            done[truncation, resample] = outputs(load_stylenerf(path, truncation, resample=resample), fixture.inputs)
        return done[truncation, resample]

    return run


@torch.no_grad()
def outputs(model, inputs):
    """Return styles, rendering and images, raw, of the inputs of a fixture."""
    w = model.styles(inputs["z"])
    camera = Camera(inputs["camera_intrinsic"], inputs["camera_to_world"])
    rendering = model.synthesis.render(w, inputs["z_shape_bg"], camera)
    return w, rendering, list(model.synthesis.images(rendering, w))


def assert_nearly(result, expected):
    """Fail unless the mean error is small and no value is far off."""
    assert result.shape == expected.shape
    error = (result.double() - expected.double()).abs()
    assert error.mean() <= MEAN_ERROR, f"mean error {error.mean():.2e}"
    assert error.max() <= PIXEL_ERROR, f"largest error {error.max():.2e}"


def every(result, name):
    """Return every N-th ray, as the name `..._strideN` of what was kept says."""
    return result[:, :: int(name.rpartition("_stride")[2])]


def names_with(fixture, *prefixes):
    found = [name for name in fixture.expected if name.startswith(prefixes)]
    assert found
    return found


@fixtures
def test_sizes_follow_from_the_settings(fixture, path):
    published, model = fixture.hyper_parameters, load_stylenerf(path)
    assert model.image_shape == (3, published["img_resolution"], published["img_resolution"])
    # A style for every layer of the field, and three for a block, of which it shares one with the next.
    slots = model.config.foreground.layers + 2 + 2 * len(model.config.block_sizes) + 1
    assert slots == int(fixture.expected["num_ws"])


@fixtures
def test_mapping(fixture, rendered):
    assert_close(rendered(1.0)[0], fixture.expected["ws"][:, 0])
    assert_close(rendered(0.7)[0], fixture.expected["ws_trunc07"][:, 0])


@fixtures
@torch.no_grad()
def test_camera(fixture, path):
    model = load_stylenerf(path)
    across, upwards = (fixture.inputs["camera_fractions"] - 0.5).T
    (left, right), (top, bottom) = model.config.yaw_range, model.config.polar_range
    camera = model.camera(across * (right - left), -upwards * (bottom - top))
    assert_close(camera.pose, fixture.inputs["camera_to_world"], 1e-6)
    assert_close(camera.intrinsic.contiguous(), fixture.inputs["camera_intrinsic"], 1e-6)


@fixtures
def test_samples_along_the_rays(fixture, rendered):
    _, rendering, _ = rendered()
    compared = {
        "depths": rendering.depths,
        "fg_weights": rendering.weights,
        "bg_lambda": rendering.transmittance,
        "bg_weights": rendering.background_weights,
    }
    for prefix, result in compared.items():
        for name in names_with(fixture, prefix):
            assert_nearly(every(result, name) if "_stride" in name else result, fixture.expected[name])


@fixtures
def test_features(fixture, rendered):
    for name in names_with(fixture, "features"):
        scale = fixture.expected[name].abs().max().clamp(min=1)  # features are larger than colours
        assert_nearly(part(rendered()[1].features, name) / scale, fixture.expected[name] / scale)


@fixtures
def test_images(fixture, rendered):
    assert_nearly(rendered()[2][0], fixture.expected["image_nerf"])
    assert_nearly(rendered()[2][-1], fixture.expected["image_trunc07"])
    assert_nearly(rendered(1.0)[2][-1], fixture.expected["image_trunc1"])


@fixtures
def test_images_without_resampling(fixture, rendered):
    *_, images = rendered(resample=False)
    assert_close(images[0], fixture.expected["image_nerf_flat"])
    assert_close(images[-1], fixture.expected["image_trunc07_flat"])


@fixtures
@torch.no_grad()
def test_image_of_the_generator(fixture, path, rendered):
    model = load_stylenerf(path, 0.7)
    inputs = fixture.inputs
    model.fixed_code.copy_(inputs["z_shape_bg"][:1])
    camera = Camera(inputs["camera_intrinsic"][:1], inputs["camera_to_world"][:1])
    image = model(inputs["z"][:1], camera=camera)
    assert_nearly(2 * image - 1, rendered()[2][-1][:1])


@fixtures
@torch.no_grad()
def test_sample_of_the_layout(fixture):
    """A small file of the publisher's own making, configuration objects and all, gives its tensors and images."""
    if not (fixture.folder / "layout_sample.npz").exists():
        pytest.skip("this fixture comes without a sample of the layout")
    with np.load(fixture.folder / "layout_sample.npz") as arrays:
        known = {key: torch.from_numpy(arrays[key]) for key in arrays}
    model = load_stylenerf(fixture.folder / "layout_sample.pkl", 0.7)
    state = model.state_dict()
    assert state
    for key, value in state.items():
        torch.testing.assert_close(value, known[f"tensor:{key}"], rtol=0, atol=0)
    inputs = {key.removeprefix("input:"): value for key, value in known.items() if key.startswith("input:")}
    w, rendering, images = outputs(model, inputs)
    assert_close(w, known["ws_trunc07"][:, 0])
    assert_nearly(rendering.image, known["image_nerf"])
    assert_nearly(images[-1], known["image_trunc07"])
