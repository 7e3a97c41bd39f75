"""Configuration of StyleNeRF, read from the settings in a published file, and the position of its camera."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from promptgen.errors import ModelFileError
from promptgen.generators.mapping.config import TruncatedConfig
from promptgen.loading.settings import supported_config
from promptgen.strict import Section

Count = Annotated[int, Field(gt=0, le=1024)]
Samples = Annotated[int, Field(ge=2, le=256)]
Interval = tuple[float, float]

BASE_WIDTH = 32768
"""Product of an upsampling block's channels and its size, before the bounds apply."""

SMALLEST_WIDTH, LARGEST_WIDTH = 4, 2048
"""Bounds of an upsampling block's channels: its adapter uses a quarter of them; no network has more."""

UNFINISHED_SAMPLES = 20
"""Samples along a ray of a network before progressive growing begins."""


class CameraConfig(Section):
    """Position of the camera on a sphere around the head; the camera faces the head.

    Attributes:
        yaw: radians sideways from the centre of the training range.
        pitch: radians upwards from the centre of the training range.
    """

    yaw: float = Field(default=0.0, ge=-math.pi, le=math.pi)
    pitch: float = Field(default=0.0, ge=-math.pi / 2, le=math.pi / 2)


class FieldConfig(Section):
    """Shape of a radiance field.

    Attributes:
        width: channels of its layers.
        layers: number of layers before the output layers.
        octaves: number of frequencies of the positional encoding, each twice the previous one.
        scale: divisor of the positions.
    """

    width: Count = 128
    layers: Annotated[int, Field(gt=0, le=64)] = 8
    octaves: Annotated[int, Field(gt=0, le=32)] = 10
    scale: float = Field(default=1.0, gt=0.0)


class StyleNeRFConfig(TruncatedConfig):
    """Shape, sampling and camera of a StyleNeRF; the defaults are those published for faces.

    Attributes:
        image_size: height and width of the image, a power of two.
        latent_dim: coordinates of z.
        style_dim: coordinates of w.
        mapping_layers: linear layers from z to w.
        foreground: shape of the field within `depth_range`.
        background: shape of the field beyond.
        background_dim: coordinates of the background code.
        feature_channels: feature channels that the fields pass to the upsampling blocks.
        volume_size: height and width of the grid of rays, a power of two.
        channel_base: factor of the channels of the upsampling blocks.
        channel_max: upper bound of these channels.
        clamp: largest absolute activation of the upsampling blocks; None means no bound.
        ray_samples: samples along a ray in the foreground.
        background_samples: samples along a ray in the background.
        resample: whether to take as many samples again where the first ones have large weights.
        field_of_view: field of view, degrees.
        depth_range: nearest and farthest sample of the foreground, in lengths of the ray to the image plane.
        background_start: inverse distance from the origin at which the background begins.
        yaw_range: training range of the angle around the vertical axis, radians.
        polar_range: training range of the angle from the vertical axis, radians.
        gaussian: whether the ranges span one standard deviation on each side, instead of being bounds.
        radius: distance of the camera from the origin.
        camera: default position of the camera.
    """

    image_size: Annotated[int, Field(ge=4, le=2048)] = 1024
    latent_dim: Count = 512
    style_dim: Count = 512
    mapping_layers: Annotated[int, Field(gt=0, le=64)] = 8
    foreground: FieldConfig = FieldConfig()
    background: FieldConfig = FieldConfig(width=64, layers=4)
    background_dim: Count = 32
    feature_channels: Count = 256
    volume_size: Annotated[int, Field(ge=2, le=1024)] = 32
    channel_base: float = Field(default=1.0, gt=0.0, le=64.0)
    channel_max: Annotated[int, Field(gt=0)] = 1024
    clamp: float | None = Field(default=256.0, gt=0.0)
    ray_samples: Annotated[int, Field(ge=3, le=256)] = 14
    background_samples: Samples = 4
    resample: bool = True
    field_of_view: float = Field(default=12.0, gt=0.0, lt=180.0)
    depth_range: Interval = (0.88, 1.12)
    background_start: float = Field(default=0.5, gt=0.0, le=1.0)
    yaw_range: Interval = (-0.3, 0.3)
    polar_range: Interval = (math.pi / 2 - 0.155, math.pi / 2 + 0.155)
    gaussian: bool = True
    radius: float = Field(default=1.0, gt=0.0)
    camera: CameraConfig = CameraConfig()

    @model_validator(mode="after")
    def _check(self) -> StyleNeRFConfig:
        for name, size in (("image_size", self.image_size), ("volume_size", self.volume_size)):
            if size & (size - 1):
                raise ValueError(f"{name} must be a power of two, got {size}")
        if self.volume_size > self.image_size:
            raise ValueError(f"volume_size must be at most {self.image_size}, the image_size, got {self.volume_size}")
        for width in map(self.channels_at, self.block_sizes):
            if not SMALLEST_WIDTH <= width <= LARGEST_WIDTH:
                raise ValueError(f"a block has {width} channels, expected {SMALLEST_WIDTH} to {LARGEST_WIDTH}")
        if not 0 < self.depth_range[0] < self.depth_range[1]:
            raise ValueError(f"depth_range must ascend from above 0, got {self.depth_range}")
        return self

    @property
    def block_sizes(self) -> list[int]:
        """Sizes of the upsampling blocks, each twice the previous one, up to the image's size."""
        return [2**power for power in range(self.volume_size.bit_length(), self.image_size.bit_length())]

    def channels_at(self, size: int) -> int:
        """Return the number of channels of the upsampling block of a size."""
        return min(int(self.channel_base * BASE_WIDTH) // size, self.channel_max)


_SYNTHESIS = "synthesis_kwargs"
_CAMERA = f"{_SYNTHESIS}.camera_kwargs"
_RENDERER = f"{_SYNTHESIS}.renderer_kwargs"
_UPSAMPLER = f"{_SYNTHESIS}.upsampler_kwargs"
_FIELDS = {"foreground": f"{_SYNTHESIS}.foreground_kwargs", "background": f"{_SYNTHESIS}.background_kwargs"}
_NEEDED = object()

SETTINGS: Mapping[str, tuple[str, Any]] = {
    "image_size": ("img_resolution", _NEEDED),
    "latent_dim": ("z_dim", _NEEDED),
    "style_dim": ("w_dim", _NEEDED),
    "mapping_layers": ("mapping_kwargs.num_layers", 8),
    "background_dim": (f"{_SYNTHESIS}.z_dim_bg", 128),
    "feature_channels": (f"{_SYNTHESIS}.rgb_out_dim", 256),
    "volume_size": (f"{_SYNTHESIS}.resolution_vol", 32),
    "channel_base": (f"{_SYNTHESIS}.channel_base", 1),
    "channel_max": (f"{_SYNTHESIS}.channel_max", 1024),
    "clamp": (f"{_SYNTHESIS}.conv_clamp", None),
    "ray_samples": (f"{_RENDERER}.n_ray_samples", 14),
    "background_samples": (f"{_RENDERER}.n_bg_samples", 4),
    "resample": (f"{_RENDERER}.hierarchical", True),
    "field_of_view": (f"{_CAMERA}.fov", 49.13),
    "depth_range": (f"{_CAMERA}.depth_range", (0.5, 6.0)),
    "background_start": (f"{_CAMERA}.bg_start", 1.0),
    "yaw_range": (f"{_CAMERA}.range_u", (0.0, 0.0)),
    "polar_range": (f"{_CAMERA}.range_v", (0.25, 0.25)),
    "gaussian": (f"{_CAMERA}.gaussian_camera", False),
}
"""Published setting of each field of `StyleNeRFConfig`, and its default if the file lacks the setting."""

FIELD_SETTINGS: Mapping[str, tuple[str, Any]] = {
    "width": ("hidden_size", 128),
    "layers": ("n_blocks", 8),
    "octaves": ("n_freq_posenc", 10),
    "scale": ("downscale_p_by", 1),
}
"""The same for `FieldConfig`."""

COMPUTED: Mapping[str, tuple[Any, Any]] = {
    "c_dim": (0, 0),
    "img_channels": (3, 3),
    "mapping_kwargs.lr_multiplier": (0.01, 0.01),
    f"{_SYNTHESIS}.z_dim": (0, 256),
    f"{_SYNTHESIS}.architecture": ("skip", "skip"),
    f"{_SYNTHESIS}.kernel_size": (1, 3),
    f"{_SYNTHESIS}.upsample_mode": ("nn_cat", "default"),
    f"{_SYNTHESIS}.activation": ("lrelu", "lrelu"),
    f"{_SYNTHESIS}.mode": ("2d", "2d"),
    f"{_CAMERA}.angular_camera": (True, False),
    f"{_CAMERA}.ray_align_corner": (False, True),
    f"{_RENDERER}.sigma_type": ("relu", "relu"),
    **{f"{path}.positional_encoding": ("normal", "normal") for path in _FIELDS.values()},
    **{f"{path}.predict_rgb": (True, False) for path in _FIELDS.values()},
    f"{_FIELDS['foreground']}.inverse_sphere": (False, False),
    f"{_FIELDS['background']}.inverse_sphere": (True, False),
}
"""The only supported value of each setting, and its default if the file lacks the setting."""

_FIELD_SWITCHES = (
    *("use_pos", "use_skip", "use_viewdirs", "add_rgb", "merge_sigma_feat", "no_sigma", "tcnn_backend", "use_normal"),
    *("use_sdf", "normalized_feat", "final_sigmoid_act", "disable_latents"),
)
SWITCHES = (
    *(f"{_SYNTHESIS}.{name}" for name in ("use_noise", "margin", "predict_camera", "rectangular", "prog_nerf_only")),
    *(f"{_SYNTHESIS}.{name}" for name in ("input_kwargs", "use_single_layer", "use_group", "interp_steps")),
    *(f"{_SYNTHESIS}.{name}" for name in ("block_name", "layer_name", "rgb_out_dim_bg")),
    *(f"{_CAMERA}.{name}" for name in ("depth_transform", "dists_normalized")),
    *(f"{_RENDERER}.{name}" for name in ("abs_sigma", "no_background", "white_background", "fine_only")),
    *(f"{_UPSAMPLER}.{name}" for name in ("no_2d_renderer", "no_residual_img", "block_reses", "channel_base_sz")),
    *(f"{_UPSAMPLER}.{name}" for name in ("channel_dict", "out_channel_dict")),
    *(f"{path}.{name}" for path in _FIELDS.values() for name in _FIELD_SWITCHES),
)
"""Settings that must be off, empty or absent, because this implementation does not support their features."""


def config_from_settings(settings: Mapping[str, Any], alpha: float, source: Path, **control: Any) -> StyleNeRFConfig:
    """Return the configuration that a published file describes; settings without effect are ignored.

    Args:
        settings: constructor arguments of the file's network, as plain values.
        alpha: the file's ``synthesis.alpha``: 1 after progressive growing has ended, -1 before it begins.
        source: the file, named in errors.
        control: `truncation`, `camera` and `resample`, plain; None leaves a value to the file or the default.

    Raises:
        ModelFileError: the settings do not describe a StyleNeRF, or ask for an unsupported feature.
    """
    _require_supported(settings, alpha, source)
    shape = _collected(settings, "", SETTINGS, source)
    for name, path in _FIELDS.items():
        shape[name] = _collected(settings, f"{path}.", FIELD_SETTINGS, source)
    radii = _setting(settings, f"{_CAMERA}.range_radius", (2.732, 2.732))
    if alpha == -1:
        shape["ray_samples"] = UNFINISHED_SAMPLES
    try:
        shape["radius"] = sum(radii) / len(radii)
    except (TypeError, ZeroDivisionError) as error:
        raise ModelFileError(f"{source}: not a supported StyleNeRF: range_radius is {radii!r:.80}") from error
    overrides = {key: value for key, value in control.items() if value is not None}
    return supported_config(StyleNeRFConfig, shape | overrides, source, "StyleNeRF", strict=False)


def _require_supported(settings: Mapping[str, Any], alpha: float, source: Path) -> None:
    if alpha not in (-1, 1):
        raise ModelFileError(
            f"{source}: synthesis.alpha is {alpha:g}, a network that still grows; expected 1, or -1 before it grows"
        )
    for path, (expected, default) in COMPUTED.items():
        value = _setting(settings, path, default)
        if value != expected:
            raise ModelFileError(f"{source}: {path} is {value!r:.80}; only {expected!r} is supported")
    for path in SWITCHES:
        value = _setting(settings, path, None)
        if value and value not in ("None", "none", {"output_mode": "none"}):
            raise ModelFileError(f"{source}: {path} is {value!r:.80}; this feature is not supported")


def _collected(
    settings: Mapping[str, Any], prefix: str, table: Mapping[str, tuple[str, Any]], source: Path
) -> dict[str, Any]:
    values = {name: _setting(settings, prefix + path, default) for name, (path, default) in table.items()}
    if missing := [table[name][0] for name, value in values.items() if value is _NEEDED]:
        raise ModelFileError(f"{source}: the settings lack {', '.join(missing)}; is it another model's file?")
    return values


def _setting(settings: Any, path: str, default: Any) -> Any:
    """Return the setting under a dotted name, or `default`."""
    for key in path.split("."):
        if not isinstance(settings, Mapping) or key not in settings:
            return default
        settings = settings[key]
    return settings
