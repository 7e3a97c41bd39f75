"""The energies that params.yaml may name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from promptgen.conditions import EULER
from promptgen.config.build import (
    build_classifier,
    build_embedder,
    build_energies,
    build_features,
    build_pose_estimator,
    load_model,
)
from promptgen.config.models import ModelSpec, ReaderSpec
from promptgen.config.registry import ENERGIES, union
from promptgen.config.spec import DottedPath, EnergyBase, Gradient, Name, Positive
from promptgen.words import class_name, listing

if TYPE_CHECKING:
    from promptgen.energies.base import Energy


class ClipTextSpec(EnergyBase):
    """Likeness to a text, as CLIP sees it.

    Attributes:
        text: what the image should show.
        models: weight of each CLIP model by the name of its card.
        augmentations: differentiably augmented copies of each image; 0 shows the image as it is.
        resize_first: resize before augmenting, which is much cheaper than after.
    """

    type: Literal["clip_text"]
    text: Annotated[str, Field(min_length=1)]
    models: Annotated[dict[Name, Positive], Field(min_length=1)]
    augmentations: Annotated[int, Field(ge=0)]
    resize_first: bool = True

    def build(self, models: Path, condition: Sequence[str]) -> Energy:
        from promptgen.energies.clip import ClipText

        clips = {name: (load_model(name, models, "clip"), weight) for name, weight in self.models.items()}
        return ClipText(clips, self.text, augmentations=self.augmentations, resize_first=self.resize_first)

    def cards(self) -> list[str]:
        return list(self.models)

    def views(self) -> Counter[str]:
        return Counter(dict.fromkeys(self.models, max(self.augmentations, 1)))

    def asks_for(self, name: str) -> str:
        return f"“{self.text}”"


class ClassifierSpec(EnergyBase):
    """Attributes with wanted labels, by the log-probability a classifier gives them.

    Attributes:
        classifier: the classifier.
        labels: wanted label by attribute.
        weights: weight of an attribute within this energy; 1 if left out.

    Example:
        >>> labels = {"hair": "long", "skin": "3"}
        >>> classifier = {"type": "card", "model": "world-classifier"}
        >>> energy = ClassifierSpec(type="classifier", weight=20.0, classifier=classifier, labels=labels)
        >>> energy.asks_for("wish"), energy.cards(), dict(energy.views())
        ('long hair and skin 3', ['world-classifier'], {'world-classifier': 1})
    """

    type: Literal["classifier"]
    classifier: ReaderSpec
    labels: Annotated[dict[str, str], Field(min_length=1)]
    weights: Annotated[dict[str, Positive], Field(default_factory=dict)]

    def build(self, models: Path, condition: Sequence[str]) -> Energy:
        from promptgen.energies.classifier import ClassifierEnergy

        return ClassifierEnergy(build_classifier(self.classifier, models), self.labels, self.weights)

    def views(self) -> Counter[str]:
        return Counter(self.classifier.names())

    def asks_for(self, name: str) -> str:
        return listing([class_name(attribute, label) for attribute, label in self.labels.items()])


class MomentSpec(EnergyBase):
    """Tilt of class shares by multipliers that were fitted elsewhere; those of `debias` are fitted by the loop itself.

    Attributes:
        classifier: the classifier.
        attributes: attributes with multipliers in the file.
        beta: name of the card of the fitted multipliers.
    """

    type: Literal["moment"]
    classifier: ReaderSpec
    attributes: Annotated[list[str], Field(min_length=1)]
    beta: Name

    def build(self, models: Path, condition: Sequence[str]) -> Energy:
        from promptgen.energies.moment import MomentEnergy

        classifier = build_classifier(self.classifier, models)
        choice = {"attributes": classifier.attributes, "chosen": self.attributes}
        return MomentEnergy(classifier, self.attributes, load_model(self.beta, models, "multipliers", **choice))

    def cards(self) -> list[str]:
        return [*super().cards(), self.beta]

    def views(self) -> Counter[str]:
        return Counter(self.classifier.names())


class PoseSpec(EnergyBase):
    """The pose that the condition asks for by its coordinates `pitch` (about X), `yaw` (Y) and `roll` (Z), radians.

    Attributes:
        estimator: the model that sees the pose.
        canonical: Euler angles XYZ, radians, that it sees where the condition is zero.
    """

    type: Literal["pose"]
    estimator: ModelSpec
    canonical: tuple[float, float, float] = (0.0, 0.0, 0.0)

    needs_condition = reads_condition = True
    coordinates = EULER

    def build(self, models: Path, condition: Sequence[str]) -> Energy:
        from promptgen.energies.pose import PoseEnergy

        return PoseEnergy(build_pose_estimator(self.estimator, models), self.canonical, condition)

    def views(self) -> Counter[str]:
        return Counter(self.estimator.names())

    def asks_for(self, name: str) -> str:
        return "a given pose"


class IdentitySpec(EnergyBase):
    """The same face, whatever the flow's condition.

    Attributes:
        embedder: the model that tells identities apart.
    """

    type: Literal["identity"]
    embedder: ModelSpec

    needs_condition = needs_anchor = True

    def build(self, models: Path, condition: Sequence[str]) -> Energy:
        from promptgen.energies.identity import IdentityEnergy

        return IdentityEnergy(build_embedder(self.embedder, models))

    def views(self) -> Counter[str]:
        return Counter(2 * self.embedder.names())  # the sample's image, and the one it is compared with

    def asks_for(self, name: str) -> str:
        return "the same face whatever the condition"


class DiversitySpec(EnergyBase):
    """Images that the generator makes too seldom: a reward for diversity.

    Attributes:
        weight: nats of KL to the generator that a nat of the log Vendi score is worth.
        features: the network whose features should vary more.
        samples: number of the generator's own images that the energy is fitted to, which `build` does not do.
    """

    type: Literal["diversity"]
    weight: Positive
    features: ModelSpec
    samples: Annotated[int, Field(ge=512)] = 2048

    depends_on_weight = True

    def build(self, models: Path, condition: Sequence[str]) -> Energy:
        from promptgen.energies.diversity import DiversityEnergy

        return DiversityEnergy(build_features(self.features, models), weight=self.weight)

    def views(self) -> Counter[str]:
        return Counter(self.features.names())

    def asks_for(self, name: str) -> str:
        return "more diversity"


class CustomEnergySpec(EnergyBase):
    """An energy of the user's own.

    Attributes:
        function: ``module:callable``; takes images, latents and the condition, returns nats, (B,).
        gradient: "none" for a function without a gradient with respect to the image.
    """

    type: Literal["custom"]
    function: DottedPath
    gradient: Gradient = "autograd"

    reads_condition = True

    def build(self, models: Path, condition: Sequence[str]) -> Energy:
        from promptgen.energies.custom import CustomEnergy

        return CustomEnergy(self.function)

    @property
    def differentiable(self) -> bool:
        return self.gradient != "none"

    def custom_code(self) -> list[str]:
        return [self.function]

    def views(self) -> Counter[str]:
        return Counter()  # it may look at images as often as it likes


class AnyOfSpec(EnergyBase):
    """OR: low where at least one of several energies is low.

    Attributes:
        energies: the alternatives by name.
    """

    type: Literal["any_of"]
    energies: Annotated[dict[Name, EnergySpec], Field(min_length=1)]

    def build(self, models: Path, condition: Sequence[str]) -> Energy:
        from promptgen.energies.compose import AnyOf

        return AnyOf(build_energies(self.energies, models, condition).terms)

    def views(self) -> Counter[str]:
        return sum((energy.views() for energy in self.energies.values()), Counter[str]())


class NotSpec(EnergyBase):
    """NOT: high where another energy is low.

    Attributes:
        energy: energy of what is not wanted.
        bound: largest absolute value, nats.
    """

    type: Literal["not"]
    energy: EnergySpec
    bound: Positive

    def build(self, models: Path, condition: Sequence[str]) -> Energy:
        from promptgen.energies.compose import Not

        return Not(build_energies({"not": self.energy}, models, condition), self.bound)

    def views(self) -> Counter[str]:
        return self.energy.views()


if TYPE_CHECKING:
    EnergySpec = EnergyBase
else:
    EnergySpec = union(ENERGIES)
    # These two contain any energy, themselves included, and can only be completed here.
    AnyOfSpec.model_rebuild(force=True)
    NotSpec.model_rebuild(force=True)
