"""The generators that params.yaml may name."""

from __future__ import annotations

from importlib import resources
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import AfterValidator, Field, model_validator

from promptgen.config.build import GENERATOR, load_custom, load_model, random_model
from promptgen.config.registry import GENERATORS, union
from promptgen.config.spec import DottedPath, GeneratorBase, Name, Positive, Shape, Share
from promptgen.drawn import CLASS, Drawn, SeveralPrompts, drawn_prompts
from promptgen.generators.classes import UNIFORM, ClassChoice, class_shares, drawn_classes
from promptgen.generators.diffae.config import DiffAEConfig, NoiseSchedule
from promptgen.generators.r3gan.config import R3GANConfig
from promptgen.generators.stylegan2.config import StyleGAN2Config
from promptgen.generators.stylegan3.config import StyleGAN3Config
from promptgen.generators.stylenerf.config import CameraConfig, StyleNeRFConfig
from promptgen.model_files.cards import Card, find_card
from promptgen.strict import Section, validate

if TYPE_CHECKING:
    from promptgen.generators.base import Generator


class WorldSpec(GeneratorBase):
    """The generator of the embedded world, whose latents have known attributes.

    Attributes:
        model: name of the card.
        truncation: truncation in w; 1 leaves the generator as it is.
    """

    type: Literal["world"]
    model: Name
    truncation: Share

    @property
    def name(self) -> str:
        return self.model

    def build(self, models: Path, *, sampling: bool = False) -> Generator:
        return cast("Generator", load_model(self.model, models, GENERATOR.kind, truncation=self.truncation))

    def cards(self) -> list[str]:
        return [self.model]

    def settings(self) -> dict[str, Any]:
        return {"truncation": self.truncation}

    def shape(self, card: Card) -> Shape | None:
        from promptgen.loading.own_files import load_tensors

        places = [url.removeprefix("package:") for url in card.files[0].urls if url.startswith("package:")]
        if not places:
            return None
        with resources.as_file(resources.files("promptgen") / places[0]) as path:
            network = load_tensors(path)[1]["network"]
        return Shape(network["size"], {"z": network["latent_dim"]})


class PublishedGenerator(GeneratorBase):
    """Base of the published generators.

    Attributes:
        model: name of the card.
        weights: ``random`` takes the network of the card without its files, with seeded random weights: for dry runs
            and benchmarks.
        arguments: replace arguments of the card, such as the size; only with random weights, which fit any network.
    """

    model: Name
    weights: Literal["published", "random"] = "published"
    arguments: Annotated[dict[str, Any], Field(default_factory=dict)]

    @model_validator(mode="after")
    def _published_weights_fit_the_card_alone(self) -> Self:
        if self.arguments and self.weights == "published":
            raise ValueError("arguments can only be given with `weights: random`; published files fit their card alone")
        if repeated := self.arguments.keys() & type(self).model_fields.keys():
            raise ValueError(f"{', '.join(sorted(repeated))} belongs beside `model`, not into arguments")
        return self

    @property
    def name(self) -> str:
        return self.model

    def build(self, models: Path, *, sampling: bool = False) -> Generator:
        options = self.options(sampling=sampling)
        if self.weights == "random":
            return cast("Generator", random_model(self.model, models, GENERATOR.kind, **{**self.arguments, **options}))
        return cast("Generator", load_model(self.model, models, GENERATOR.kind, **options))

    def cards(self) -> list[str]:
        return [self.model] if self.weights == "published" else []

    def settings(self) -> dict[str, Any]:
        return self.model_dump(exclude={"type", *PublishedGenerator.model_fields}, exclude_none=True)

    def options(self, *, sampling: bool) -> dict[str, Any]:
        """Return the keyword arguments of the network beside those of its card; `sampling` as of `build`."""
        return self.settings()

    def network(self, card: Card) -> dict[str, Any]:
        """Return the arguments of the network that the card describes, with those replaced that params.yaml gives."""
        return {**card.arguments, **self.arguments}


class ClassConditionalSpec(PublishedGenerator):
    """Base of the generators that may have classes.

    Attributes:
        classes: one class, or the shares by which classes are drawn; for a network with classes alone, which needs it.
    """

    config: ClassVar[type[StyleGAN2Config | StyleGAN3Config | R3GANConfig]]
    classes: ClassChoice | None = None

    def shape(self, card: Card) -> Shape:
        config = validate(self.config, self.network(card))
        held = 1 if drawn_classes(class_shares(self.classes, config.class_count, self.model)) else 0
        return Shape(config.size, {"z": config.latent_dim, **({CLASS: held} if held else {})}, held=held)

    def drawn(self, models: Path) -> Drawn | None:
        if isinstance(self.classes, dict):  # needs no card, which may leave the number of classes to the file
            return drawn_classes(dict(sorted(self.classes.items())))
        count = self.network(find_card(self.model, models)).get("class_count") if self.classes == UNIFORM else None
        return drawn_classes(class_shares(UNIFORM, count, self.model)) if count else None


class StyleGAN2Spec(ClassConditionalSpec):
    """A StyleGAN2 that has a card.

    Attributes:
        truncation: truncation in w; 1 leaves the generator as it is.

    Example:
        >>> from promptgen.model_files.cards import find_card
        >>> spec = StyleGAN2Spec(type="stylegan2", model="stylegan2-ffhq-1024", truncation=0.7)
        >>> spec.shape(find_card(spec.model)).dim
        512
    """

    config = StyleGAN2Config
    type: Literal["stylegan2"]
    truncation: Share


class StyleGAN3Spec(ClassConditionalSpec):
    """A StyleGAN3, of either variant, that has a card.

    Attributes:
        truncation: truncation in w; 1 leaves the generator as it is.
    """

    config = StyleGAN3Config
    type: Literal["stylegan3"]
    truncation: Share


class R3GANSpec(ClassConditionalSpec):
    """An R3GAN that has a card."""

    config = R3GANConfig
    type: Literal["r3gan"]


class BigGANSpec(PublishedGenerator):
    """A BigGAN-deep that has a card; class embeddings are part of its latent.

    Attributes:
        truncation: factor of z, which is clamped to +-2 before; the published experiments use 0.4.
    """

    type: Literal["biggan"]
    truncation: Annotated[float, Field(gt=0, le=1)]

    def shape(self, card: Card) -> Shape:
        from promptgen.generators.biggan.config import published_config

        config = published_config(self.network(card).get("size", 0))
        return Shape(config.output_dim, {"z": config.z_dim, "class embedding": config.class_embed_dim})


class NVAESpec(PublishedGenerator):
    """An NVAE that has a card.

    Attributes:
        temperature: factor of the standard deviation of every group of latents.
        groups: indices, from coarse to fine, of the groups whose noise is controlled, or ``all``. The default, the
            first alone, is the one that all others build on, and small enough for a flow; the noise of the others is
            fixed.
        statistics_passes: passes that estimate the statistics of batch normalisation again at this temperature (500 in
            the published recipe for temperatures below 1); 0 keeps the stored ones.
    """

    type: Literal["nvae"]
    temperature: Positive
    groups: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | Literal["all"] = (0,)
    statistics_passes: Annotated[int, Field(ge=0)] = 0

    def shape(self, card: Card) -> Shape:
        from promptgen.generators.nvae.config import NVAEConfig

        config = validate(NVAEConfig, {**self.network(card), "groups": self.groups})
        groups = {f"group {index}": prod(config.latent_shapes[index]) for index in config.chosen}
        return Shape(config.image_size, groups)


def _possible(steps: int) -> int:
    NoiseSchedule().spaced(steps)  # raises if its steps cannot be spaced so
    return steps


Steps = Annotated[int, Field(ge=2, le=1000), AfterValidator(_possible)]


class DiffAESpec(PublishedGenerator):
    """A diffusion autoencoder that has a card.

    Attributes:
        latent: ``code`` controls the noise of the semantic code, and the noise of the image is fixed; with
            ``code_and_noise`` the latter is part of the latent, which then has many thousand coordinates.
        latent_steps: steps of the sampler of codes, for training and whatever else needs gradients or many samples.
        image_steps: the same of the sampler of images.
        sampling_latent_steps: steps of the sampler of codes for the images that are measured, shown and handed out;
            null means `latent_steps`.
        sampling_image_steps: the same of the sampler of images.
    """

    type: Literal["diffae"]
    latent: Literal["code", "code_and_noise"] = "code"
    latent_steps: Steps = 5
    image_steps: Steps = 5
    sampling_latent_steps: Steps | None = None
    sampling_image_steps: Steps | None = None

    def options(self, *, sampling: bool) -> dict[str, Any]:
        latent_steps, image_steps = self.latent_steps, self.image_steps
        if sampling:
            latent_steps = self.sampling_latent_steps or latent_steps
            image_steps = self.sampling_image_steps or image_steps
        return {"latent": self.latent, "latent_steps": latent_steps, "image_steps": image_steps}

    def shape(self, card: Card) -> Shape:
        config = validate(DiffAEConfig, {**self.network(card), "latent": self.latent})
        noise = config.latent_dim - config.style_channels
        return Shape(config.image_size, {"code": config.style_channels, **({"noise": noise} if noise else {})})

    def relative_cost(self, card: Card, *, sampling: bool) -> float:
        measured: int = card.arguments.get("image_steps", DiffAEConfig().image_steps)
        steps: int = self.options(sampling=sampling)["image_steps"]
        return steps / measured


class StyleNeRFSpec(PublishedGenerator):
    """A StyleNeRF that has a card; its latent says who is seen, the camera from where.

    Attributes:
        truncation: truncation in w; 1 leaves the generator as it is.
        camera: where the camera stands, the same for all images.
    """

    type: Literal["stylenerf"]
    truncation: Share
    camera: CameraConfig = CameraConfig()

    def shape(self, card: Card) -> Shape:
        config = validate(StyleNeRFConfig, self.network(card))
        return Shape(config.image_size, {"z": config.latent_dim})


class DCGANSpec(PublishedGenerator):
    """A DCGAN that has a card; it has no options."""

    type: Literal["dcgan"]

    def shape(self, card: Card) -> Shape | None:
        from promptgen.generators.dcgan import DCGANConfig

        network = self.network(card)
        if self.weights == "published" and not DCGANConfig.model_fields.keys() <= network.keys():
            return None
        config = validate(DCGANConfig, {key: value for key, value in network.items() if key != "seed"})
        return Shape(config.size, {"z": config.latent_dim})


class CustomGenerator(GeneratorBase):
    """A generator of the user's own.

    Attributes:
        factory: ``module:callable``; called with `arguments`, returns the generator.
        arguments: keyword arguments of the factory.
        prompts: shares by which prompts are drawn, which the factory gets as a further argument `prompts`; the
            generator draws one for each image with the last coordinate of its latent, as `promptgen.drawn.Drawn` does.
    """

    type: Literal["custom"]
    factory: DottedPath
    arguments: Annotated[dict[str, Any], Field(default_factory=dict)]
    prompts: SeveralPrompts = None

    @model_validator(mode="after")
    def _has_one_prompt_or_several(self) -> Self:
        if self.prompts and (twice := self.arguments.keys() & {"prompt", "prompts"}):
            raise ValueError(f"give either `prompts` or {twice.pop()!r} among the arguments, not both")
        return self

    @property
    def name(self) -> str:
        return self.factory

    def build(self, models: Path, *, sampling: bool = False) -> Generator:
        drawn = {"prompts": self.prompts} if self.prompts else {}
        return cast("Generator", load_custom(self.factory, {**self.arguments, **drawn}, GENERATOR))

    def settings(self) -> dict[str, Any]:
        return {"prompts": self.prompts} if self.prompts else {}

    def drawn(self, models: Path) -> Drawn | None:
        return drawn_prompts(self.prompts)

    def custom_code(self) -> list[str]:
        return [self.factory]


if TYPE_CHECKING:
    GeneratorSpec = GeneratorBase
else:
    GeneratorSpec = union(GENERATORS)


class _HasGenerator(Section):
    generator: GeneratorSpec


def generator_spec(content: Any) -> GeneratorSpec:
    """Return the section of a generator from its plain content, such as a chain's file holds.

    Raises:
        ConfigError: a key is unknown, missing, ill-typed or out of range.
    """
    return validate(_HasGenerator, {"generator": content}).generator
