"""What a saved pipeline of diffusers holds, read from its JSON files without torch or diffusers.

A pipeline is a folder: `model_index.json` names the class of each part, and each part has a folder of its own with its
config and its weights. Only the classes that a family is known to have are loaded, and only from safetensors, so that
nothing in the folder runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from promptgen.errors import ConfigError, ModelFileError
from promptgen.strict import did_you_mean

INDEX_NAME = "model_index.json"

Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class Family:
    """A family of few-step text-to-image models.

    Attributes:
        title: what people call it.
        network: folder of the denoising network.
        network_class: its class.
        vae_class: class of the decoder.
        schedulers: classes of the schedulers whose steps are known.
        encoders: folders of the text encoders and of their tokenizers.
        guidance: guidance of the published model.
        text_width: key of the network's config that has the width of a prompt's embedding.
        multiple: what height and width are a multiple of beside the decoder's factor.
        packing: side of the patches into which the latent is packed for the network; 1 leaves it as it is.
    """

    title: str
    network: str
    network_class: str
    vae_class: str
    schedulers: tuple[str, ...]
    encoders: Mapping[str, str]
    guidance: float
    text_width: str
    multiple: int = 1
    packing: int = 1


_EULER = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "LCMScheduler")
_ONE_ENCODER = {"text_encoder": "tokenizer"}
_TWO_ENCODERS = {**_ONE_ENCODER, "text_encoder_2": "tokenizer_2"}
_UNET = ("unet", "UNet2DConditionModel", "AutoencoderKL")

FAMILIES: Mapping[str, Family] = {
    "StableDiffusionPipeline": Family("SD-Turbo", *_UNET, _EULER, _ONE_ENCODER, 0.0, "cross_attention_dim"),
    "StableDiffusionXLPipeline": Family("SDXL-Turbo", *_UNET, _EULER, _TWO_ENCODERS, 0.0, "cross_attention_dim"),
    "LatentConsistencyModelPipeline": Family(
        "LCM", *_UNET, ("LCMScheduler",), _ONE_ENCODER, 8.5, "cross_attention_dim"
    ),
    "SanaSprintPipeline": Family(
        *("SANA-Sprint", "transformer", "SanaTransformer2DModel", "AutoencoderDC", ("SCMScheduler",)),
        *(_ONE_ENCODER, 4.5, "caption_channels"),
        multiple=32,
    ),
    "FluxPipeline": Family(
        *("FLUX schnell", "transformer", "FluxTransformer2DModel", "AutoencoderKL"),
        *(("FlowMatchEulerDiscreteScheduler",), _TWO_ENCODERS, 3.5, "joint_attention_dim"),
        packing=2,
    ),
}
"""The known families by the class of their pipeline."""

DEFAULT_SIZES = {"FluxPipeline": 128, "SanaSprintPipeline": 32}
"""Height and width of the latent, by the pipeline's class, where the network's config does not say."""


@dataclass(frozen=True)
class PipelineFolder:
    """A saved pipeline.

    Args:
        path: the folder.
        variant: part of the names of weight files, such as ``fp16``; None for the plain ones.

    Raises:
        ModelFileError: the folder is none of a pipeline, lacks a config, or has no weights as safetensors.
        ConfigError: the pipeline, or one of its parts, is of an unknown class.
    """

    path: Path
    variant: str | None = None

    def __post_init__(self) -> None:
        self._require_class(self.family.network, self.family.network_class)
        self._require_class("vae", self.family.vae_class)
        self._require_class("scheduler", *self.family.schedulers)
        for part in (self.family.network, "vae"):
            self.config(part)
            self.weights(part)

    @cached_property
    def index(self) -> Mapping[str, Any]:
        """Content of `model_index.json`."""
        if not self.path.is_dir():
            raise ModelFileError(f"{self.path} is not a folder, expected the folder of a pipeline with a {INDEX_NAME}")
        return self._json(INDEX_NAME)

    @cached_property
    def pipeline_class(self) -> str:
        """Class of the pipeline, one of `FAMILIES`."""
        name = str(self.index.get("_class_name"))
        if name not in FAMILIES:
            raise ConfigError(f"{self.path} is a {name}, which is not a known family{did_you_mean(name, FAMILIES)}")
        return name

    @property
    def family(self) -> Family:
        """Its family."""
        return FAMILIES[self.pipeline_class]

    @property
    def is_xl(self) -> bool:
        """Whether it is one of SDXL, whose decoder differs a little from that of its family."""
        return self.pipeline_class == "StableDiffusionXLPipeline"

    @property
    def upcasts_decoder(self) -> bool:
        """Whether the pipeline decodes in single precision even if it is in half precision."""
        return self.is_xl and bool(self.config("vae").get("force_upcast", True))

    @cached_property
    def encoders(self) -> dict[str, str]:
        """Folders of the text encoders that it has, and of their tokenizers."""
        return {
            encoder: tokenizer
            for encoder, tokenizer in self.family.encoders.items()
            if self.part_class(encoder) and self.part_class(tokenizer)
        }

    def part_class(self, part: str) -> str | None:
        """Return the class of a part; None if the pipeline lacks it."""
        entry = self.index.get(part)
        named = isinstance(entry, list) and len(entry) == 2 and all(isinstance(name, str) for name in entry)
        return str(entry[1]) if named and isinstance(entry, list) else None

    def config(self, part: str) -> Mapping[str, Any]:
        """Return the config of a part."""
        return self._json(f"{part}/{'scheduler_config' if part == 'scheduler' else 'config'}.json")

    def weights(self, part: str) -> list[Path]:
        """Return the safetensors files of a part.

        Raises:
            ModelFileError: there are none.
        """
        stem = "model" if part in self.family.encoders else "diffusion_pytorch_model"
        name = f".{self.variant}" if self.variant else ""
        part_of, ending = r"-\d+-of-\d+", re.escape(name)
        shard = re.compile(rf"{stem}({ending}({part_of})?|{part_of}{ending})\.safetensors")
        folder = self.path / part
        files = sorted(file for file in folder.glob("*.safetensors") if shard.fullmatch(file.name))
        if not files:
            others = sorted(file.name for file in folder.glob("*") if file.suffix in (".safetensors", ".bin", ".ckpt"))
            raise ModelFileError(
                f"{folder} has no {stem}{name}.safetensors, found {', '.join(others) or 'no weights'}: "
                "save the pipeline with safe_serialization, or set `variant` to that of its file names"
            )
        return files

    def files(self) -> list[Path]:
        """Return every file that the generator is made from."""
        parts = {self.family.network, "vae", *self.encoders}
        folders = {*parts, "scheduler", *self.encoders.values()}
        settings = [file for part in folders for file in (self.path / part).glob("*") if file.suffix in SETTINGS]
        return sorted([self.path / INDEX_NAME, *settings, *(file for part in parts for file in self.weights(part))])

    @cached_property
    def scale(self) -> int:
        """Image pixels per pixel of the latent, in each direction."""
        key = "encoder_block_out_channels" if self.family.vae_class == "AutoencoderDC" else "block_out_channels"
        channels = self.config("vae").get(key)
        if not isinstance(channels, list) or not channels:
            raise ModelFileError(f"{self.path / 'vae'}/config.json has no list {key}")
        return int(2 ** (len(channels) - 1))

    @cached_property
    def channels(self) -> int:
        """Channels of the latent."""
        config = self.config(self.family.network)
        channels = config.get("in_channels")
        if not isinstance(channels, int) or channels < 1:
            raise ModelFileError(f"{self.path / self.family.network}/config.json has no number of in_channels")
        return channels // self.family.packing**2

    def size(self, height: int | None, width: int | None) -> Size:
        """Return the size of the image, pixels; None means that of the pipeline.

        Raises:
            ConfigError: a side is not a multiple of what the decoder and the network need.
        """
        native = self.config(self.family.network).get("sample_size")
        if self.pipeline_class == "FluxPipeline" or native is None:
            native = DEFAULT_SIZES.get(self.pipeline_class, 64)
        sides = native if isinstance(native, list) else [native, native]
        chosen = (height or sides[0] * self.scale, width or sides[1] * self.scale)
        step = max(self.scale * self.family.packing, self.family.multiple)
        for name, side in zip(("height", "width"), chosen, strict=True):
            if side % step or side < step:
                lower = max(side // step, 1) * step
                raise ConfigError(
                    f"{name}: a {self.family.title} with this decoder needs a multiple of {step}, got {side}; "
                    f"the nearest are {lower} and {lower + step}"
                )
        return chosen

    def latent_shape(self, size: Size) -> tuple[int, int, int]:
        """Return channels, height and width of the latent of an image of this size."""
        return self.channels, size[0] // self.scale, size[1] // self.scale

    def _require_class(self, part: str, *allowed: str) -> None:
        name = self.part_class(part)
        if name not in allowed:
            raise ConfigError(
                f"{self.path / INDEX_NAME}: {part} is {name or 'missing'}, a {self.family.title} has "
                f"{' or '.join(allowed)}"
            )

    def _json(self, name: str) -> Mapping[str, Any]:
        path = self.path / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ModelFileError(f"{path} is missing; is {self.path} a pipeline that save_pretrained wrote?") from error
        except (OSError, ValueError) as error:
            raise ModelFileError(f"{path} cannot be read as JSON: {error}") from error
        if not isinstance(content, dict):
            raise ModelFileError(f"{path} is not a mapping, expected the JSON that save_pretrained writes")
        return content


SETTINGS = (".json", ".txt", ".model")
"""Endings of the files beside the weights: configs, vocabularies and tokenizers."""
