"""StyleNeRF: contract, camera, backgrounds, rays, published settings in any container, damaged files."""

import io
import math
import pickle

import pytest
import torch
import yaml
from pydantic import ValidationError

from promptgen.build import build_generator
from promptgen.errors import ConfigError, DataError, ModelFileError
from promptgen.files import sha256_of
from promptgen.generators.base import GaussianPrior
from promptgen.generators.stylenerf import load_stylenerf, random_stylenerf
from promptgen.generators.stylenerf_config import CameraConfig, StyleNeRFConfig, config_from_settings
from promptgen.generators.stylenerf_rays import background_positions, cast_rays, encode, opacity_weights, resampled
from promptgen.seeding import stream
from promptgen.specs import GeneratorSpec
from promptgen.strict import Section, validate
from tests.parity.persistent import EasyDict, Persistent, persistent_file, publishers_modules, wrapped

SHAPE = {
    "image_size": 16,
    "latent_dim": 6,
    "style_dim": 5,
    "mapping_layers": 2,
    "foreground": {"width": 8, "layers": 3, "octaves": 4},
    "background": {"width": 4, "layers": 2, "octaves": 3},
    "background_dim": 3,
    "feature_channels": 6,
    "volume_size": 4,
    "channel_base": 2**-8,
    "channel_max": 12,
    "ray_samples": 6,
}
SETTINGS = {
    "z_dim": 6,
    "w_dim": 5,
    "c_dim": 0,
    "img_resolution": 16,
    "img_channels": 3,
    "mapping_kwargs": {"num_layers": 2},
    "synthesis_kwargs": {
        "num_fp16_res": 4,
        "channel_base": 2**-8,
        "channel_max": 12,
        "conv_clamp": 256,
        "kernel_size": 1,
        "architecture": "skip",
        "upsample_mode": "nn_cat",
        "z_dim_bg": 3,
        "z_dim": 0,
        "resolution_vol": 4,
        "rgb_out_dim": 6,
        "use_noise": False,
        "camera_kwargs": {
            "range_v": [math.pi / 2 - 0.155, math.pi / 2 + 0.155],
            "range_u": [-0.3, 0.3],
            "range_radius": [1.0, 1.0],
            "depth_range": [0.88, 1.12],
            "fov": 12,
            "gaussian_camera": True,
            "angular_camera": True,
            "depth_transform": None,
            "ray_align_corner": False,
            "bg_start": 0.5,
        },
        "renderer_kwargs": {"n_bg_samples": 4, "n_ray_samples": 6, "hierarchical": True, "abs_sigma": False},
        "foreground_kwargs": {"predict_rgb": True, "hidden_size": 8, "n_blocks": 3, "n_freq_posenc": 4},
        "background_kwargs": {
            "predict_rgb": True,
            "inverse_sphere": True,
            "hidden_size": 4,
            "n_blocks": 2,
            "n_freq_posenc": 3,
            "skips": [],
        },
        "upsampler_kwargs": {"block_reses": None, "upsample_type": "bilinear"},
        "a setting of later code": 3,
    },
}


class Project(Section):
    """What of params.yaml these tests need."""

    generator: GeneratorSpec


def small(seed=0, **fields):
    return random_stylenerf(seed, **SHAPE | fields)


def latents(model, n=3):
    return model.prior.sample(n, stream(0, "test"))


def changed(path, value):
    """Published settings with one of them changed; None takes it away."""

    def change(settings, keys):
        (key, *rest) = keys
        if rest:
            return settings | {key: change(settings.get(key, {}), rest)}
        return {name: old for name, old in settings.items() if name != key} | ({} if value is None else {key: value})

    return change(SETTINGS, path.split("."))


def published_tensors(model, alpha=1.0):
    """What a published file holds of the model: filters everywhere, and how far growing has come."""
    tensors = dict(model.state_dict())
    tensors["synthesis.alpha"] = torch.tensor(alpha)
    tensors["synthesis.fg_nerf.fc_in.resample_filter"] = tensors["synthesis.b8.resample_filter"]
    return tensors


@pytest.fixture
def path(tmp_path):
    return persistent_file(tmp_path / "network.pkl", published_tensors(small()), SETTINGS)


@pytest.mark.parametrize("resample", [True, False])
@pytest.mark.parametrize("image_size", [4, 8, 16])
def test_keeps_the_generator_contract(image_size, resample):
    model = small(image_size=image_size, resample=resample, truncation=0.7)
    assert isinstance(model.prior, GaussianPrior)
    assert model.image_shape == (3, image_size, image_size)
    assert model.prior.dim == 6
    latent = latents(model).requires_grad_()
    image = model(latent)
    assert image.shape == (3, *model.image_shape)
    assert image.isfinite().all()
    torch.testing.assert_close(model(latent), image, rtol=0, atol=0)
    torch.testing.assert_close(model(latent[:1]), image[:1])
    (gradient,) = torch.autograd.grad(image.square().sum(), latent)
    assert (gradient.abs() > 0).all()


def test_gradient_is_that_of_finite_differences():
    model = small(resample=False).double()  # with re-sampling the image jumps
    direction = latents(model, 1).double()
    latent = latents(model, 2)[1:].double().requires_grad_()
    (gradient,) = torch.autograd.grad(model(latent).square().sum(), latent)
    with torch.no_grad():
        after, before = (model(latent + step * direction).square().sum() for step in (1e-6, -1e-6))
    torch.testing.assert_close((gradient * direction).sum(), (after - before) / 2e-6, rtol=1e-5, atol=1e-6)


def test_frozen_for_good():
    model = small()
    assert not any(value.requires_grad for value in model.parameters())
    assert not model.train().training


def test_seed_decides_weights_and_background():
    latent = torch.zeros(1, 6) + 1
    state = torch.get_rng_state()
    torch.testing.assert_close(small(1)(latent), small(1)(latent), rtol=0, atol=0)
    assert not torch.allclose(small(1)(latent), small(2)(latent))
    assert not torch.equal(small(1).fixed_code, small(2).fixed_code)
    torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)


def test_background_is_fixed_unless_a_stream_is_given():
    model = small()
    latent = latents(model)
    fresh = model(latent, noise=stream(3, "noise"))
    assert not torch.allclose(fresh, model(latent))
    torch.testing.assert_close(model(latent, noise=stream(3, "noise")), fresh, rtol=0, atol=0)
    codes = model.backgrounds(3, stream(3, "noise"))
    assert not torch.equal(codes[0], codes[1])


def test_truncation_moves_styles_to_their_mean():
    model, truncated = small(), small(truncation=0.25)
    w, mean = model.styles(latents(model)), truncated.mapping.w_avg
    assert mean.abs().sum() > 0
    torch.testing.assert_close(truncated.styles(latents(model)), mean + 0.25 * (w - mean))
    torch.testing.assert_close(truncated.mapping.w_avg, small(truncation=0.5).mapping.w_avg, rtol=0, atol=0)


def test_camera_of_the_configuration_and_of_the_argument():
    turned, model = small(camera={"yaw": 0.2, "pitch": -0.1}), small()
    latent = latents(model)
    camera = model.camera(0.2, -0.1)
    torch.testing.assert_close(model(latent, camera=camera), turned(latent), rtol=0, atol=0)
    assert not torch.allclose(model(latent), turned(latent))
    several = model.camera(torch.tensor([0.2, 0.0, 0.2]), torch.tensor([-0.1, 0.0, -0.1]))
    images = model(latent, camera=several)
    torch.testing.assert_close(images[[0, 2]], turned(latent)[[0, 2]])
    torch.testing.assert_close(images[1], model(latent)[1])


def test_camera_looks_at_the_origin():
    camera = small().camera(torch.tensor([0.0, 0.4]), torch.tensor([0.0, 0.3]))
    position, backwards = camera.pose[:, :3, 3], camera.pose[:, :3, 2]
    torch.testing.assert_close(position, backwards)
    torch.testing.assert_close(position[0], torch.tensor([1.0, 0.0, 0.0]))
    assert position[1, 1] > 0  # to the side
    torch.testing.assert_close(position[1, 2], torch.tensor(0.3).sin())  # and up
    rotation = camera.pose[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(2, 3, 3))
    assert (torch.linalg.det(rotation) > 0).all()


@pytest.mark.parametrize("gaussian", [True, False])
def test_cameras_of_the_training(gaussian):
    model = small(gaussian=gaussian)
    camera = model.trained_cameras(4000, stream(0, "cameras"))
    forward, side, up = camera.pose[:, :3, 3].T
    yaw, pitch = torch.atan2(side, forward), torch.asin(up)
    width = 1 if gaussian else 1 / math.sqrt(3)  # standard deviation of a uniform number between -1 and 1
    for angle, spread in ((yaw, 0.3), (pitch, 0.155)):
        assert abs(float(angle.mean())) < 0.1 * spread
        assert float(angle.std()) == pytest.approx(spread * width, rel=0.05)
    torch.testing.assert_close(model.trained_cameras(4000, stream(0, "cameras")).pose, camera.pose, rtol=0, atol=0)


def test_rays_go_through_the_centres_of_pixels():
    origins, directions = cast_rays(small().camera(0.0, 0.0), 2)
    half = math.tan(math.radians(6)) / 2
    torch.testing.assert_close(origins, torch.tensor([[[1.0, 0.0, 0.0]]]))
    # From the front the camera's right is the world's y axis; rows come from the top.
    expected = torch.tensor([[-1, -half, half], [-1, half, half], [-1, -half, -half], [-1, half, -half]])
    torch.testing.assert_close(directions[0], expected, atol=1e-6, rtol=0)


def test_encoding():
    found = encode(torch.tensor([[0.25, 0.5]]), 2)
    root = math.sqrt(0.5)
    torch.testing.assert_close(found, torch.tensor([[root, 1.0, root, 0.0, 1.0, 0.0, 0.0, -1.0]]), atol=1e-6, rtol=0)


def test_background_positions_lie_on_the_ray_and_the_sphere():
    origins, directions = (part.double() for part in cast_rays(small().camera(0.3, 0.1), 4))
    found = background_positions(origins, directions, torch.tensor([0.5, 0.1, 0.0], dtype=torch.float64))
    torch.testing.assert_close(found[..., :3].norm(dim=3), torch.ones(1, 16, 3, dtype=torch.float64))
    points = found[..., :2, :3] / found[..., :2, 3:]
    across = torch.linalg.cross(points - origins[:, :, None], directions[:, :, None].expand_as(points))
    torch.testing.assert_close(across, torch.zeros_like(across), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[..., 2, :3], directions / directions.norm(dim=2, keepdim=True))


def test_opacity_weights():
    density, distances = torch.tensor([[[1.0, 2.0, 5.0]]]), torch.tensor([[[0.5, 0.25]]])
    weights, transmittance = opacity_weights(density, distances, last=0.0)
    through = math.exp(-0.5)
    torch.testing.assert_close(weights[0, 0], torch.tensor([1 - through, through * (1 - through), 0.0]))
    assert float(transmittance) == pytest.approx(through**2)
    everything, _ = opacity_weights(density, distances, last=1.0)
    assert float(everything.sum()) == pytest.approx(1)


def test_resampled_fractions_are_quantiles():
    fractions = torch.linspace(0, 1, 5)
    even = resampled(fractions, torch.ones(1, 1, 5))
    torch.testing.assert_close(even[0, 0], torch.linspace(0.125, 0.875, 5))
    peaked = resampled(fractions, torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0]]]))
    assert ((peaked[0, 0, 1:-1] > 0.37) & (peaked[0, 0, 1:-1] < 0.63)).all()


def test_loading_restores_the_network(path):
    model = load_stylenerf(path)
    torch.testing.assert_close(model(latents(model)), small()(latents(model)), rtol=0, atol=0)
    assert model.config == small().config


def test_loading_with_a_camera_and_without_resampling(path):
    model = load_stylenerf(path, 0.5, camera={"yaw": 0.1, "pitch": 0.2}, resample=False)
    assert model.config == StyleNeRFConfig(
        **SHAPE, truncation=0.5, camera=CameraConfig(yaw=0.1, pitch=0.2), resample=False
    )


def test_an_experiment_names_it(tmp_path):
    """From a section of params.yaml over a card to the file, camera and all."""
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    path = persistent_file(folder / "network.pkl", published_tensors(small()), SETTINGS)
    file = {"file": path.name, "urls": [], "sha256": sha256_of(path)}
    card = {"kind": "generator", "type": "stylenerf", "files": [file], "licence": "CC0"}
    (tmp_path / "cards.yaml").write_text(yaml.safe_dump({"mine": card}))
    section = {"type": "stylenerf", "model": "mine", "truncation": 0.6, "camera": {"yaw": 0.1, "pitch": -0.2}}
    made = build_generator(validate(Project, {"generator": section}).generator, folder.parent)
    expected = load_stylenerf(path, 0.6, camera=CameraConfig(yaw=0.1, pitch=-0.2))
    torch.testing.assert_close(made(latents(made)), expected(latents(made)), rtol=0, atol=0)
    with pytest.raises(ConfigError, match=r"generator\.camera\.roll is unknown"):
        validate(Project, {"generator": section | {"camera": {"roll": 0.1}}})


def test_unfinished_network_takes_more_samples(tmp_path):
    path = persistent_file(tmp_path / "network.pkl", published_tensors(small(), alpha=-1.0), SETTINGS)
    assert load_stylenerf(path).config.ray_samples == 20


def easy(settings):
    """Settings in the publisher's own dicts."""
    return EasyDict({key: easy(value) if isinstance(value, dict) else value for key, value in settings.items()})


def test_settings_in_dicts_of_another_class(tmp_path):
    path = persistent_file(tmp_path / "network.pkl", published_tensors(small()), easy(SETTINGS))
    assert load_stylenerf(path).config == small().config


def test_settings_in_a_configuration_system(tmp_path):
    """Its values can stand for others, from the outermost container on."""
    network = changed("mapping_kwargs.num_layers", "${spec.map}")
    outermost = wrapped({"spec": {"map": 2}, "model": {"network": network}})
    inner = outermost._content["model"]._content["network"]
    path = persistent_file(tmp_path / "network.pkl", published_tensors(small()), dict(inner._content))
    assert load_stylenerf(path).config == small().config


def test_what_the_file_would_run_is_not_run(tmp_path):
    """The source text in it raises if it is run; what the file's other entries hold is not used."""
    other = persistent_file(tmp_path / "other.pkl", {"weight": torch.zeros(1)}, {})
    content = {"D": other.read_bytes(), "augment_pipe": None}
    path = persistent_file(tmp_path / "network.pkl", published_tensors(small()), SETTINGS, **content)
    assert load_stylenerf(path).config == small().config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("img_resolution", None, "the settings lack img_resolution"),
        ("z_dim", 10**9, "latent_dim: Input should be less"),
        ("z_dim", "many", "latent_dim: Input should be a valid integer"),
        ("img_resolution", 24, "image_size must be a power of two, got 24"),
        ("img_resolution", 2, "image_size: Input should be greater"),
        ("c_dim", 10, "c_dim is 10; only 0 is computed here"),
        ("mapping_kwargs.num_layers", "${elsewhere}", r"mapping_layers: .*valid integer"),
        ("synthesis_kwargs", 3, "synthesis_kwargs.z_dim is 256"),
        ("synthesis_kwargs.resolution_vol", 32, "volume_size must be at most 16"),
        ("synthesis_kwargs.channel_base", 2**-14, "a block has 0 channels, expected 4 to 2048"),
        ("synthesis_kwargs.channel_base", 10**300, "channel_base: Input should be less"),
        ("synthesis_kwargs.upsample_mode", "bilinear", "upsample_mode is 'bilinear'; only 'nn_cat' is computed"),
        ("synthesis_kwargs.upsample_mode", None, "upsample_mode is 'default'; only 'nn_cat' is computed"),
        ("synthesis_kwargs.use_noise", True, "use_noise is True; what it turns on is not computed here"),
        ("synthesis_kwargs.camera_kwargs.depth_transform", "LogWarp", "depth_transform is 'LogWarp'; what it turns on"),
        ("synthesis_kwargs.camera_kwargs.range_radius", [], r"range_radius is \[\]"),
        ("synthesis_kwargs.camera_kwargs.range_radius", 3, "range_radius is 3"),
        ("synthesis_kwargs.camera_kwargs.depth_range", [1.2, 0.8], "depth_range must ascend"),
        ("synthesis_kwargs.foreground_kwargs.use_viewdirs", True, "foreground_kwargs.use_viewdirs is True"),
        ("synthesis_kwargs.background_kwargs.n_blocks", 10**6, "background.layers: Input should be less"),
    ],
)
def test_settings_that_are_not_computed_are_refused_by_name(tmp_path, path, value, message):
    with pytest.raises(ModelFileError, match=rf"some\.pkl: .*{message}") as error:
        config_from_settings(changed(path, value), 1.0, tmp_path / "some.pkl")
    assert "\n" not in str(error.value)


def test_settings_that_are_off_are_ignored(tmp_path):
    for name in ("use_pos", "use_sdf", "add_rgb"):
        for value in (False, None, 0):
            settings = changed(f"synthesis_kwargs.foreground_kwargs.{name}", value)
            assert config_from_settings(settings, 1.0, tmp_path) == small().config


def damaged(**changes):
    return {key: value for key, value in (published_tensors(small()) | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"synthesis.alpha": None}, "expected one number under 'synthesis.alpha'"),
        ({"synthesis.alpha": torch.zeros(2)}, "expected one number under 'synthesis.alpha'"),
        ({"synthesis.alpha": torch.tensor(0.5)}, "synthesis.alpha is 0.5, a network that still grows"),
        ({"mapping.fc0.weight": None}, "missing: mapping.fc0.weight;"),
        ({"mapping.fc2.weight": torch.zeros(5, 5)}, "unexpected: mapping.fc2.weight;"),
        ({"mapping.w_avg": torch.zeros(4)}, r"of another shape: mapping.w_avg is \(4,\), expected \(5,\)"),
        ({"mapping.w_avg": torch.zeros(5, dtype=torch.int64)}, "mapping.w_avg is torch.int64, expected floating"),
        ({"synthesis.b8.resample_filter": None}, "missing: synthesis.b8.resample_filter;"),
    ],
)
def test_damaged_networks_are_named(tmp_path, tensors, message):
    path = persistent_file(tmp_path / "network.pkl", damaged(**tensors), SETTINGS)
    with pytest.raises(ModelFileError, match=rf"network\.pkl: .*{message}"):
        load_stylenerf(path)


def network(**state):
    return Persistent("Generator", state)


def nested(depth):
    made = {}
    for _ in range(depth):
        made = {"a": made, "b": made}
    return made


def looped():
    made = torch.nn.ModuleList()
    made._modules["itself"] = made
    return made


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected a network under 'G_ema', found list"),
        ({"G": 1}, r"expected a network under 'G_ema', found \['G'\]"),
        ({"G_ema": 3}, "expected a network under 'G_ema'"),
        ({"G_ema": network()}, "has no settings under '_init_kwargs'"),
        ({"G_ema": network(_init_kwargs=3)}, "has no settings under '_init_kwargs'"),
        ({"G_ema": network(_init_kwargs=nested(30))}, "expected one number under 'synthesis.alpha'"),
        ({"G_ema": network(_init_kwargs=nested(60))}, "nested too deeply"),
        ({"G_ema": network(_init_kwargs={}, _modules=3)}, "_modules is a int, expected a dict"),
        ({"G_ema": network(_init_kwargs={}, _buffers={"a.b": torch.ones(1)})}, "_buffers has the name 'a.b'"),
        ({"G_ema": network(_init_kwargs={}, _buffers={"a": 1})}, "a is a int, expected a tensor"),
        ({"G_ema": looped()}, "one within itself"),
    ],
)
def test_files_of_other_things_are_named(tmp_path, content, message):
    path = tmp_path / "network.pkl"
    with publishers_modules(), path.open("wb") as file:
        pickle.dump(content, file, protocol=3)
    with pytest.raises(ModelFileError, match=rf"network\.pkl: .*{message}") as error:
        load_stylenerf(path)
    assert "\n" not in str(error.value)


def test_a_file_of_another_container_is_named(tmp_path):
    buffer = io.BytesIO()
    torch.save(small().state_dict(), buffer)
    (tmp_path / "network.pkl").write_bytes(buffer.getvalue())
    with pytest.raises(ModelFileError, match=r"network\.pkl: expected a pickle of tensors and known classes"):
        load_stylenerf(tmp_path / "network.pkl")


def test_latents_of_a_wrong_shape_are_refused():
    with pytest.raises(DataError, match=r"expected latents of shape \(B, 6\), got \(3, 7\)"):
        small()(torch.zeros(3, 7))


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 12},
        {"volume_size": 32},
        {"channel_base": 2**-10},
        {"channel_base": 64.0, "channel_max": 10**6},
        {"truncation": 1.5},
        {"ray_samples": 2},
        {"depth_range": (1.0, 1.0)},
        {"camera": {"yaw": 4.0}},
        {"camera": {"roll": 0.0}},
        {"samples": 3},
    ],
)
def test_impossible_configurations_are_refused(wrong):
    with pytest.raises(ValidationError):
        StyleNeRFConfig(**SHAPE | wrong)
    with pytest.raises(ConfigError):
        small(**wrong)


@pytest.mark.parametrize(("size", "blocks"), [(256, 3), (512, 4), (1024, 5)])
def test_published_sizes(size, blocks):
    config = StyleNeRFConfig(image_size=size)
    assert len(config.block_sizes) == blocks
    assert [config.channels_at(at) for at in config.block_sizes] == [512, 256, 128, 64, 32][:blocks]
