"""What params.yaml may name as a model: a card, the user's own, CLIP as a classifier, or several classifiers as one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from promptgen.config.build import CLASSIFIER, Role, load_custom, load_model
from promptgen.config.registry import CLASSIFIERS, MODELS, union
from promptgen.config.spec import DottedPath, Gradient, Label, ModelBase, Name
from promptgen.words import listing


class CardModel(ModelBase):
    """A model that has a card; written as its bare name.

    Attributes:
        model: name of the card.
    """

    type: Literal["card"] = "card"
    model: Name

    def build(self, models: Path, role: Role) -> Any:
        return load_model(self.model, models, role.kind)

    def cards(self) -> list[str]:
        return [self.model]

    def describe(self) -> str:
        return self.model


class CustomModel(ModelBase):
    """A model of the user's own.

    Attributes:
        factory: ``module:callable``; called with `arguments`, returns the model.
        arguments: keyword arguments of the factory.
        gradient: "none" for a model without a gradient with respect to the image, such as one that gives hard labels.
    """

    type: Literal["custom"]
    factory: DottedPath
    arguments: Annotated[dict[str, Any], Field(default_factory=dict)]
    gradient: Gradient = "autograd"

    @property
    def differentiable(self) -> bool:
        return self.gradient != "none"

    def build(self, models: Path, role: Role) -> Any:
        return load_custom(self.factory, self.arguments, role)

    def custom_code(self) -> list[str]:
        return [self.factory]

    def describe(self) -> str:
        return self.factory


class ClipLabelsModel(ModelBase):
    """A classifier of any attribute that can be put in words, by CLIP; it inherits CLIP's own bias.

    Attributes:
        model: name of the card of a CLIP model.
        attributes: text of every label, by attribute and label; at least two labels each.
    """

    type: Literal["clip_labels"]
    model: Name
    attributes: Annotated[dict[Label, Annotated[dict[Label, Label], Field(min_length=2)]], Field(min_length=1)]

    def build(self, models: Path, role: Role) -> Any:
        from promptgen.perception.zero_shot import ZeroShotClassifier

        return ZeroShotClassifier(load_model(self.model, models, "clip"), self.attributes)

    def cards(self) -> list[str]:
        return [self.model]

    def describe(self) -> str:
        return self.model


def _card_of_name(value: Any) -> Any:
    return {"type": "card", "model": value} if isinstance(value, str) else value


if TYPE_CHECKING:
    ModelSpec = ModelBase
    OneClassifier = ModelBase
    ReaderSpec = ModelBase
else:
    ModelSpec = Annotated[union(MODELS), BeforeValidator(_card_of_name)]
    OneClassifier = Annotated[union(CLASSIFIERS), BeforeValidator(_card_of_name)]


class JointModel(ModelBase):
    """Several classifiers as one that reads all their attributes.

    Attributes:
        classifiers: the classifiers; no two of them read an attribute of the same name.
    """

    type: Literal["joint"]
    classifiers: Annotated[list[OneClassifier], Field(min_length=2)]

    def build(self, models: Path, role: Role) -> Any:
        from promptgen.perception.joint import JointClassifier

        return JointClassifier([part.build(models, CLASSIFIER) for part in self.classifiers])

    def describe(self) -> str:
        return listing([part.describe() for part in self.classifiers])


if not TYPE_CHECKING:
    ReaderSpec = Annotated[union([*CLASSIFIERS, "promptgen.config.models:JointModel"]), BeforeValidator(_card_of_name)]
