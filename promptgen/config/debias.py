"""The `debias` section of params.yaml: which shares are the target, and how they are reached."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_serializer, model_validator

from promptgen.config.models import ReaderSpec
from promptgen.config.spec import Positive, Share
from promptgen.config.targets import resolved
from promptgen.drawn import Drawn
from promptgen.errors import ConfigError
from promptgen.evaluations.config import AnyTraining, ReuseConfig
from promptgen.labels import PRODUCT
from promptgen.moments.config import DualConfig
from promptgen.strict import Section, summing_to_one

Target = Annotated[dict[str, Positive], Field(min_length=2), AfterValidator(summing_to_one), BeforeValidator(resolved)]
"""Target share of each label; the shares sum to 1. A weighted choice or a CSV file becomes such a mapping."""


class Debias(Section):
    """Which shares are the target, and how they are reached.

    Attributes:
        attribute: the attribute to de-bias, or a product of attributes such as ``hair x glasses``.
        target: target share of each label (of a product: ``short x with``); the shares sum to 1.
        classifier: the classifier that steers training.
        judge: the classifier whose counts decide; it takes no part in training.
        features: ``hard`` fits the multipliers to shares of labels, ``soft`` to mean probabilities.
        max_passes: maximum number of de-biasing passes; 0 measures the shares and changes nothing.
        samples: samples that the multipliers are fitted on.
        ess_floor: minimum effective sample size of the tilted samples, as a fraction of `samples`; a fit below it is
            an error.
        bootstrap: resamples for the intervals of the multipliers; 0 gives none.
        training: how the flow of a pass is trained; null fits the multipliers on the last measured pass and stops.
        dual: how the multipliers change during training on the flow's own samples; null keeps the fitted ones.
        weight: factor of the moment energy, lambda in the paper; 1 is the exact tilt.
        target_images: folder of images whose shares are the target in place of `target`, which may as well be written
            ``target: {images: FOLDER}``; a relative one starts at the folder of params.yaml.
        target_samples: number of samples that the shares of `target` were counted on; null for shares that are wanted
            as they are. Images of a folder are counted without it.
        within: what the generator draws by shares, ``prompt`` or ``class``, within whose labels the target shares hold.
            It is short for the product of both as the attribute, with products of their shares as the target, and is
            read as that.
    """

    attribute: str
    target: Target | None
    classifier: ReaderSpec
    judge: ReaderSpec
    features: Literal["hard", "soft"]
    max_passes: Annotated[int, Field(ge=0, le=1000)]
    samples: Annotated[int, Field(ge=30)]
    ess_floor: Share
    bootstrap: Annotated[int, Field(ge=0)]
    training: AnyTraining | None
    dual: DualConfig | None = None
    weight: Positive = 1.0
    target_images: Annotated[str, Field(min_length=1)] | None = Field(default=None, exclude=True)
    target_samples: Annotated[int, Field(ge=1)] | None = None
    within: Literal["prompt", "class"] | None = Field(default=None, exclude=True)

    @field_serializer("target")
    def _folder_in_place_of_shares(self, target: dict[str, float] | None) -> dict[str, Any]:
        return target or {"images": self.target_images}

    @model_validator(mode="before")
    @classmethod
    def _folder_as_target(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        target = content.get("target")
        if isinstance(target, dict) and set(target) == {"images"} and isinstance(target["images"], str):
            return {**content, "target": None, "target_images": target["images"]}
        return {"target": None, **content} if "target_images" in content else content

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if self.target is None and self.target_images is None:
            raise ValueError("target: give the share of each label, or `{images: FOLDER}`")
        if self.target is None and self.target_samples is not None:
            raise ValueError("target_samples: the images of a folder are counted; remove it")
        if self.target is None and self.within:
            raise ValueError(f"within: {self.within} needs the share of each label as the target, not a folder")
        return self

    def within_each(self, drawn: Drawn) -> Debias:
        """Return the same target within each label of what a generator draws, whose own shares stay."""
        target = {
            f"{outer}{PRODUCT}{label}": one * other
            for outer, one in drawn.shares.items()
            for label, other in self.shares.items()
        }
        attribute = f"{drawn.name}{PRODUCT}{self.attribute}"
        return self.model_copy(update={"attribute": attribute, "target": target, "within": None})

    @property
    def shares(self) -> dict[str, float]:
        """Target share of each label.

        Raises:
            ConfigError: they are those of a folder of images, which has not been read.
        """
        if self.target is None:
            raise ConfigError(f"the target shares are those of the images in {self.target_images}, not read yet")
        return self.target

    @model_validator(mode="after")
    def _keys_suit_the_method(self) -> Self:
        if isinstance(self.training, ReuseConfig):
            if self.dual is not None:
                raise ValueError(
                    "dual belongs to the method on_policy; the method reuse lands on the target without it"
                )
            if self.weight != 1:
                raise ValueError("a weight other than 1 needs the method on_policy or plain")
        elif self.training is not None and not self.classifier.differentiable:
            raise ValueError(
                f"the classifier has no gradient, which the method {self.training.method} needs: use reuse"
            )
        return self
