"""StyleNeRF's published files: settings in any container, loading, damaged files."""

import io
import math
import pickle

import pytest
import torch
import yaml

from promptgen.config.generators import GeneratorSpec
from promptgen.errors import ConfigError, ModelFileError
from promptgen.files import sha256_of
from promptgen.generators.stylenerf.config import CameraConfig, StyleNeRFConfig, config_from_settings
from promptgen.generators.stylenerf.generator import load_stylenerf
from promptgen.strict import Section, validate
from tests.generators import small
from tests.parity.persistent import EasyDict, Persistent, persistent_file, publishers_modules, wrapped

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
    return persistent_file(tmp_path / "network.pkl", published_tensors(small.stylenerf()), SETTINGS)


def test_loading_restores_the_network(path):
    model = load_stylenerf(path)
    torch.testing.assert_close(model(small.latents(model)), small.stylenerf()(small.latents(model)), rtol=0, atol=0)
    assert model.config == small.stylenerf().config


def test_loading_with_a_camera_and_without_resampling(path):
    model = load_stylenerf(path, 0.5, camera={"yaw": 0.1, "pitch": 0.2}, resample=False)
    assert model.config == StyleNeRFConfig(
        **small.STYLENERF, truncation=0.5, camera=CameraConfig(yaw=0.1, pitch=0.2), resample=False
    )


def test_an_experiment_names_it(tmp_path):
    """From a section of params.yaml over a card to the file, camera and all."""
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    path = persistent_file(folder / "network.pkl", published_tensors(small.stylenerf()), SETTINGS)
    file = {"file": path.name, "urls": [], "sha256": sha256_of(path)}
    card = {"kind": "generator", "type": "stylenerf", "files": [file], "licence": "CC0"}
    (tmp_path / "cards.yaml").write_text(yaml.safe_dump({"mine": card}))
    section = {"type": "stylenerf", "model": "mine", "truncation": 0.6, "camera": {"yaw": 0.1, "pitch": -0.2}}
    made = validate(Project, {"generator": section}).generator.build(folder.parent)
    expected = load_stylenerf(path, 0.6, camera=CameraConfig(yaw=0.1, pitch=-0.2))
    torch.testing.assert_close(made(small.latents(made)), expected(small.latents(made)), rtol=0, atol=0)
    with pytest.raises(ConfigError, match=r"generator\.camera\.roll is unknown"):
        validate(Project, {"generator": section | {"camera": {"roll": 0.1}}})


def test_unfinished_network_takes_more_samples(tmp_path):
    path = persistent_file(tmp_path / "network.pkl", published_tensors(small.stylenerf(), alpha=-1.0), SETTINGS)
    assert load_stylenerf(path).config.ray_samples == 20


def easy(settings):
    """Settings in the publisher's own dicts."""
    return EasyDict({key: easy(value) if isinstance(value, dict) else value for key, value in settings.items()})


def test_settings_in_dicts_of_another_class(tmp_path):
    path = persistent_file(tmp_path / "network.pkl", published_tensors(small.stylenerf()), easy(SETTINGS))
    assert load_stylenerf(path).config == small.stylenerf().config


def test_settings_in_a_configuration_system(tmp_path):
    """Its values can stand for others, from the outermost container on."""
    network = changed("mapping_kwargs.num_layers", "${spec.map}")
    outermost = wrapped({"spec": {"map": 2}, "model": {"network": network}})
    inner = outermost._content["model"]._content["network"]
    path = persistent_file(tmp_path / "network.pkl", published_tensors(small.stylenerf()), dict(inner._content))
    assert load_stylenerf(path).config == small.stylenerf().config


def test_what_the_file_would_run_is_not_run(tmp_path):
    """The source text in it raises if it is run; what the file's other entries hold is not used."""
    other = persistent_file(tmp_path / "other.pkl", {"weight": torch.zeros(1)}, {})
    content = {"D": other.read_bytes(), "augment_pipe": None}
    path = persistent_file(tmp_path / "network.pkl", published_tensors(small.stylenerf()), SETTINGS, **content)
    assert load_stylenerf(path).config == small.stylenerf().config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("img_resolution", None, "the settings lack img_resolution"),
        ("z_dim", 10**9, "latent_dim: should be less"),
        ("z_dim", "many", "latent_dim: should be a valid integer"),
        ("img_resolution", 24, "image_size must be a power of two, got 24"),
        ("img_resolution", 2, "image_size: should be greater"),
        ("c_dim", 10, "c_dim is 10.*0"),
        ("mapping_kwargs.num_layers", "${elsewhere}", r"mapping_layers: .*valid integer"),
        ("synthesis_kwargs", 3, "synthesis_kwargs.z_dim is 256"),
        ("synthesis_kwargs.resolution_vol", 32, "volume_size must be at most 16"),
        ("synthesis_kwargs.channel_base", 2**-14, "a block has 0 channels, expected 4 to 2048"),
        ("synthesis_kwargs.channel_base", 10**300, "channel_base: should be"),
        ("synthesis_kwargs.upsample_mode", "bilinear", "upsample_mode is 'bilinear'.*'nn_cat'"),
        ("synthesis_kwargs.upsample_mode", None, "upsample_mode is 'default'.*'nn_cat'"),
        ("synthesis_kwargs.use_noise", True, "use_noise is True"),
        ("synthesis_kwargs.camera_kwargs.depth_transform", "LogWarp", "depth_transform is 'LogWarp'"),
        ("synthesis_kwargs.camera_kwargs.range_radius", [], r"range_radius is \[\]"),
        ("synthesis_kwargs.camera_kwargs.range_radius", 3, "range_radius is 3"),
        ("synthesis_kwargs.camera_kwargs.depth_range", [1.2, 0.8], "depth_range must ascend"),
        ("synthesis_kwargs.foreground_kwargs.use_viewdirs", True, "foreground_kwargs.use_viewdirs is True"),
        ("synthesis_kwargs.background_kwargs.n_blocks", 10**6, "background.layers: should be less"),
    ],
)
def test_settings_that_are_not_computed_are_refused_by_name(tmp_path, refused, path, value, message):
    with refused(rf"some\.pkl: .*{message}"):
        config_from_settings(changed(path, value), 1.0, tmp_path / "some.pkl")


def test_settings_that_are_off_are_ignored(tmp_path):
    for name in ("use_pos", "use_sdf", "add_rgb"):
        for value in (False, None, 0):
            settings = changed(f"synthesis_kwargs.foreground_kwargs.{name}", value)
            assert config_from_settings(settings, 1.0, tmp_path) == small.stylenerf().config


def damaged(**changes):
    return {key: value for key, value in (published_tensors(small.stylenerf()) | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"synthesis.alpha": None}, "expected one number under 'synthesis.alpha'"),
        ({"synthesis.alpha": torch.zeros(2)}, "expected one number under 'synthesis.alpha'"),
        ({"synthesis.alpha": torch.tensor(0.5)}, "synthesis.alpha is 0.5, a network that still grows"),
        ({"mapping.fc0.weight": None}, "missing: mapping.fc0.weight;"),
        ({"mapping.fc2.weight": torch.zeros(5, 5)}, "unexpected: mapping.fc2.weight;"),
        ({"mapping.w_avg": torch.zeros(4)}, r"of another shape: mapping.w_avg is \(4,\), expected \(5,\)"),
        ({"mapping.w_avg": torch.zeros(5, dtype=torch.int64)}, "mapping.w_avg is int64, expected float32"),
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
        ({"G_ema": looped()}, "contains itself"),
    ],
)
def test_files_of_other_things_are_named(tmp_path, refused, content, message):
    path = tmp_path / "network.pkl"
    with publishers_modules(), path.open("wb") as file:
        pickle.dump(content, file, protocol=3)
    with refused(rf"network\.pkl: .*{message}"):
        load_stylenerf(path)


def test_a_file_of_another_container_is_named(tmp_path):
    buffer = io.BytesIO()
    torch.save(small.stylenerf().state_dict(), buffer)
    (tmp_path / "network.pkl").write_bytes(buffer.getvalue())
    with pytest.raises(ModelFileError, match=r"network\.pkl: expected a pickle of tensors and known classes"):
        load_stylenerf(tmp_path / "network.pkl")
