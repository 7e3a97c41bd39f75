"""What an experiment may name: models, generators and energies, told apart by their `type`.

What the project does not ship is brought along by a dotted path, and no file of the project is edited for it: a model
as ``{type: custom, factory: "module:callable", arguments: {...}}``, an energy as
``{type: custom, function: "module:callable", weight: 1.0}``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from promptgen.generators.diffae_config import NoiseSchedule
from promptgen.generators.stylenerf_config import CameraConfig
from promptgen.strict import Name as Name
from promptgen.strict import Section

DottedPath = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Label = Annotated[str, Field(min_length=1)]


class CardModel(Section):
    """A model that has a card; written as its bare name.

    Attributes:
        model: name of the card.
    """

    type: Literal["card"] = "card"
    model: Name


class CustomModel(Section):
    """A model of the user's own.

    Attributes:
        factory: ``module:callable``; called with `arguments`, returns the model.
        arguments: keyword arguments of the factory.
    """

    type: Literal["custom"]
    factory: DottedPath
    arguments: Annotated[dict[str, Any], Field(default_factory=dict)]


def _name_to_card(value: Any) -> Any:
    return {"type": "card", "model": value} if isinstance(value, str) else value


ModelSpec = Annotated[CardModel | CustomModel, Field(discriminator="type"), BeforeValidator(_name_to_card)]


class ClipLabelsModel(Section):
    """A classifier of any attribute that can be put in words, by CLIP; it inherits CLIP's own bias.

    Attributes:
        model: name of the card of a CLIP model.
        attributes: text of every label, by attribute and label; two labels at least.
    """

    type: Literal["clip_labels"]
    model: Name
    attributes: Annotated[dict[Label, Annotated[dict[Label, Label], Field(min_length=2)]], Field(min_length=1)]


OneReaderSpec = Annotated[
    CardModel | CustomModel | ClipLabelsModel, Field(discriminator="type"), BeforeValidator(_name_to_card)
]


class JointModel(Section):
    """Several classifiers as one that reads all their attributes.

    Attributes:
        classifiers: the classifiers; no two of them read an attribute of the same name.
    """

    type: Literal["joint"]
    classifiers: Annotated[list[OneReaderSpec], Field(min_length=2)]


ReaderSpec = Annotated[
    CardModel | CustomModel | ClipLabelsModel | JointModel,
    Field(discriminator="type"),
    BeforeValidator(_name_to_card),
]
"""What reads attributes off images: a classifier, CLIP as one, or several as one."""


class PublishedGenerator(Section):
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


class StyleGAN2Spec(PublishedGenerator):
    """A StyleGAN2 that has a card.

    Attributes:
        truncation: truncation in w; 1 leaves the generator as it is.
    """

    type: Literal["stylegan2"]
    truncation: Share


class WorldSpec(Section):
    """The generator of the embedded world, whose latents have known attributes.

    Attributes:
        model: name of the card.
        truncation: truncation in w; 1 leaves the generator as it is.
    """

    type: Literal["world"]
    model: Name
    truncation: Share


class BigGANSpec(PublishedGenerator):
    """A BigGAN-deep that has a card; class embeddings are part of its latent.

    Attributes:
        truncation: factor of z, which is clamped to +-2 before; the published experiments use 0.4.
    """

    type: Literal["biggan"]
    truncation: Annotated[float, Field(gt=0, le=1)]


class StyleNeRFSpec(PublishedGenerator):
    """A StyleNeRF that has a card; its latent says who is seen, the camera from where.

    Attributes:
        truncation: truncation in w; 1 leaves the generator as it is.
        camera: where the camera stands, the same for all images.
    """

    type: Literal["stylenerf"]
    truncation: Share
    camera: CameraConfig = CameraConfig()


class NVAESpec(PublishedGenerator):
    """An NVAE that has a card.

    Attributes:
        temperature: factor of the standard deviation of every group of latents.
        groups: indices, from coarse to fine, of the groups whose noise is controlled, or ``all``. The first alone, the
            default, is the one that all others build on, and small enough for a flow; the noise of the others is fixed.
        statistics_passes: passes that estimate the statistics of batch normalisation again at this temperature (500 in
            the published recipe for temperatures below 1); 0 keeps the stored ones.
    """

    type: Literal["nvae"]
    temperature: Positive
    groups: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | Literal["all"] = (0,)
    statistics_passes: Annotated[int, Field(ge=0)] = 0


def _possible(steps: int) -> int:
    NoiseSchedule().spaced(steps)  # raises if its steps cannot be spaced so
    return steps


Steps = Annotated[int, Field(ge=2, le=1000), AfterValidator(_possible)]

SAMPLING_FIELDS = ("sampling_latent_steps", "sampling_image_steps")
"""What a `DiffAESpec` has for sampling alone."""


class DiffAESpec(PublishedGenerator):
    """A diffusion autoencoder that has a card.

    Attributes:
        latent: ``code`` controls the noise of the semantic code, and the noise of the image is fixed; with
            ``code_and_noise`` the latter is part of the latent, which has many thousand coordinates then.
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

    def for_sampling(self) -> Self:
        """Return the same with the steps for sampling in the place of those for training."""
        steps = {name.removeprefix("sampling_"): getattr(self, name) for name in SAMPLING_FIELDS}
        return self.model_copy(update={name: number for name, number in steps.items() if number is not None})


GeneratorSpec = Annotated[
    WorldSpec | StyleGAN2Spec | BigGANSpec | NVAESpec | DiffAESpec | StyleNeRFSpec | CustomModel,
    Field(discriminator="type"),
]


class EnergySection(Section):
    """Base of all energies.

    Attributes:
        weight: factor of the energy, which is in nats once multiplied; negative to push away.
    """

    weight: float


class ClipTextSpec(EnergySection):
    """Likeness to a text, as CLIP sees it.

    Attributes:
        text: what the image should show.
        models: weight of each CLIP model by the name of its card.
        augmentations: differentiably augmented copies of each image.
        resize_first: resize before augmenting, which is much cheaper than after.
    """

    type: Literal["clip_text"]
    text: Annotated[str, Field(min_length=1)]
    models: Annotated[dict[Name, Positive], Field(min_length=1)]
    augmentations: Annotated[int, Field(ge=0)]
    resize_first: bool = True


class ClassifierSpec(EnergySection):
    """Attributes with wanted labels, by the log-probability a classifier gives them.

    Attributes:
        classifier: the classifier.
        labels: wanted label by attribute.
        weights: weight of an attribute within this energy; 1 where none is given.
    """

    type: Literal["classifier"]
    classifier: ReaderSpec
    labels: Annotated[dict[str, str], Field(min_length=1)]
    weights: Annotated[dict[str, Positive], Field(default_factory=dict)]


class MomentSpec(EnergySection):
    """Tilt of class shares by multipliers that were fitted elsewhere; what `debias` fits by itself needs none of this.

    Attributes:
        classifier: the classifier.
        attributes: attributes with multipliers in the file.
        beta: name of the card of the fitted multipliers.
    """

    type: Literal["moment"]
    classifier: ReaderSpec
    attributes: Annotated[list[str], Field(min_length=1)]
    beta: Name


class PoseSpec(EnergySection):
    """The pose that the condition asks for by its coordinates `pitch` (about X), `yaw` (Y) and `roll` (Z), radians.

    Attributes:
        estimator: the model that sees the pose.
        canonical: Euler angles XYZ, radians, that it sees where the condition is zero.
    """

    type: Literal["pose"]
    estimator: ModelSpec
    canonical: tuple[float, float, float] = (0.0, 0.0, 0.0)


class IdentitySpec(EnergySection):
    """The same face, whatever the flow's condition.

    Attributes:
        embedder: the model that tells identities apart.
    """

    type: Literal["identity"]
    embedder: ModelSpec


class CustomEnergySpec(EnergySection):
    """An energy of the user's own.

    Attributes:
        function: ``module:callable``; takes images, latents and the condition, returns nats, (B,).
    """

    type: Literal["custom"]
    function: DottedPath


class AnyOfSpec(EnergySection):
    """OR: low where at least one of several energies is low.

    Attributes:
        energies: the alternatives by name.
    """

    type: Literal["any_of"]
    energies: Annotated[dict[Name, EnergySpec], Field(min_length=1)]


class NotSpec(EnergySection):
    """NOT: high where another energy is low.

    Attributes:
        energy: energy of what is not wanted.
        bound: largest absolute value, nats.
    """

    type: Literal["not"]
    energy: EnergySpec
    bound: Positive


EnergySpec = Annotated[
    ClipTextSpec | ClassifierSpec | MomentSpec | PoseSpec | IdentitySpec | CustomEnergySpec | AnyOfSpec | NotSpec,
    Field(discriminator="type"),
]


def simple_energies(spec: EnergySpec) -> Iterator[EnergySpec]:
    """Yield the energies that `spec` is composed of; a simple one is all there is of it."""
    if isinstance(spec, AnyOfSpec):
        for part in spec.energies.values():
            yield from simple_energies(part)
    elif isinstance(spec, NotSpec):
        yield from simple_energies(spec.energy)
    else:
        yield spec


Spec = GeneratorSpec | ModelSpec | ReaderSpec | EnergySpec
"""Anything that an experiment may name."""

# These two contain any energy, themselves included, and can only be completed here.
AnyOfSpec.model_rebuild(force=True)
NotSpec.model_rebuild(force=True)
