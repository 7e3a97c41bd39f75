"""The bases of all sections of params.yaml that stand for a model, a generator or an energy.

A kind is one class below these bases, and one line in `promptgen.config.registry`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from promptgen.strict import Name as Name
from promptgen.strict import Section

if TYPE_CHECKING:
    from promptgen.config.build import Role
    from promptgen.drawn import Drawn
    from promptgen.energies.base import Energy
    from promptgen.generators.base import Generator
    from promptgen.model_files.cards import Card

DottedPath = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Label = Annotated[str, Field(min_length=1)]
Gradient = Literal["autograd", "none"]
"""Whether the user's own code has a gradient with respect to the image."""


class Spec(Section, ABC):
    """A section that stands for a model, a generator or an energy; its `type` says which.

    It needs what the sections inside it need, unless a subclass adds to that.
    """

    def parts(self) -> Iterator[Spec]:
        """Yield the sections directly inside this one, in the order of its keys."""
        for value in self.__dict__.values():
            inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
            yield from (part for part in inner if isinstance(part, Spec))

    def cards(self) -> list[str]:
        """Return the names of the cards whose files are needed."""
        return [name for part in self.parts() for name in part.cards()]

    def custom_code(self) -> list[str]:
        """Return the dotted paths of the user's code that is needed."""
        return [path for part in self.parts() for path in part.custom_code()]

    def digests(self, models: Path) -> dict[str, str]:
        """Return what identifies the files that are needed beside cards and the user's code, by their names."""
        return {name: value for part in self.parts() for name, value in part.digests(models).items()}

    @property
    def differentiable(self) -> bool:
        """Whether the result has a gradient with respect to the image."""
        return all(part.differentiable for part in self.parts())

    def names(self) -> list[str]:
        """Return how the models are called: a card by its name, the user's code by its dotted path."""
        return [*self.cards(), *self.custom_code()]


class ModelBase(Spec):
    """Base of the models that look at images."""

    @abstractmethod
    def build(self, models: Path, role: Role) -> Any:
        """Return the frozen model.

        Raises:
            ConfigError: there is no such card or factory, or the model is of another kind.
            ModelFileError: a weight file is missing or damaged.
        """

    @abstractmethod
    def describe(self) -> str:
        """Return its name: that of its card, or the dotted path of the user's factory."""


@dataclass(frozen=True)
class Shape:
    """Size of what goes into a generator and of what comes out.

    Attributes:
        image_size: height and width of the images, pixels.
        latent: number of coordinates of each part of the latent, by the part's name.
        image_width: width of the images if it differs from their height.
        held: number of the last coordinates that flows leave as they are and take as a condition.
    """

    image_size: int
    latent: Mapping[str, int]
    image_width: int | None = None
    held: int = 0

    @property
    def width(self) -> int:
        """Width of the images, pixels."""
        return self.image_width or self.image_size

    @property
    def dim(self) -> int:
        """Coordinates of the whole latent."""
        return sum(self.latent.values())


class GeneratorBase(Spec):
    """Base of the generators."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name: that of its card, or the dotted path of the user's factory."""

    @abstractmethod
    def build(self, models: Path, *, sampling: bool = False) -> Generator:
        """Return the frozen generator.

        Args:
            models: folder of the weight files.
            sampling: whether its images are measured, shown or handed out; a generator that refines images step by step
                may take more steps for that than in training.

        Raises:
            ConfigError: there is no such card or factory, or it returns something else than a generator.
            ModelFileError: a weight file is missing or damaged.
        """

    def settings(self) -> dict[str, Any]:
        """Return its settings in params.yaml, such as a truncation, by name."""
        return {}

    def shape(self, card: Card) -> Shape | None:
        """Return the size of its latents and images, from its card alone; None if the card does not determine it."""
        return None

    def own_shape(self, models: Path) -> Shape | None:
        """Return the size of its latents and images, from its files in or beside the folder `models`; None as above."""
        return None

    def drawn(self, models: Path) -> Drawn | None:
        """Return what it draws for each image by shares, with the last coordinate of its latent; None if nothing.

        Args:
            models: folder of the weight files, beside which the user's own cards are.
        """
        return None

    def latent_form(self, models: Path) -> dict[str, Any] | None:
        """Return the shape of its latents in the pipeline that the generator is made from; None if there is none."""
        return None

    @property
    def card_name(self) -> str | None:
        """Name of the card that describes its network, whatever its weights are; None if there is none."""
        return None if self.custom_code() else self.name

    def relative_cost(self, card: Card, *, sampling: bool) -> float:
        """Return what an image costs as a multiple of the cost on the card; `sampling` as of `build`."""
        return 1.0


class EnergyBase(Spec):
    """Base of the energies.

    Attributes:
        weight: factor of the energy, which is in nats once multiplied; negative to push away.
    """

    weight: float

    needs_condition: ClassVar[bool] = False
    """Whether the energy makes sense only for a flow with a condition."""
    reads_condition: ClassVar[bool] = False
    """Whether the energy may depend on the condition."""
    coordinates: ClassVar[tuple[str, ...]] = ()
    """Coordinates of the condition that the energy reads; the condition must have at least one of them."""
    depends_on_weight: ClassVar[bool] = False
    """Whether a change of the weight changes the energy itself, not only its factor."""
    needs_anchor: ClassVar[bool] = False
    """Whether each image is compared with that of the same noise under the null condition."""

    @abstractmethod
    def build(self, models: Path, condition: Sequence[str]) -> Energy:
        """Return the energy, without its weight.

        Args:
            models: folder of the weight files.
            condition: names of the coordinates of the condition.

        Raises:
            ConfigError: there is no such card, a label is unknown to its classifier, or a model is of another kind.
            ModelFileError: a weight file is missing or damaged.
        """

    @abstractmethod
    def views(self) -> Counter[str]:
        """Return how many images each model sees for one sample, by the model's name."""

    def asks_for(self, name: str) -> str:
        """Return what it asks for, in words.

        Args:
            name: its name in params.yaml, the description of an energy that has no better one.
        """
        return name

    def simple(self) -> Iterator[EnergyBase]:
        """Yield the energies that it is composed of; a simple energy yields itself."""
        inner = [part for part in self.parts() if isinstance(part, EnergyBase)]
        if not inner:
            yield self
        for part in inner:
            yield from part.simple()
