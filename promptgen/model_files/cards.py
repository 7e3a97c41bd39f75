"""Cards: what is known of a model's files. They lie in the `cards.yaml` beside the code that reads the files.

A `cards.yaml` beside the project's models folder adds the user's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

import promptgen
from promptgen.errors import ConfigError
from promptgen.strict import Name, Section, did_you_mean, read_yaml, validate

CARDS_NAME = "cards.yaml"


_URL = r"^(https?://[!-.0-?A-~]+/[!-~]*|hub:[\w.-]+/[\w.-]+/[!-~]+|package:.+|file:.+)$"  # no password before an @
URL = Annotated[str, Field(pattern=_URL)]
SHA256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class CardFile(Section):
    """One file of a model.

    Attributes:
        file: name of the file in the model's folder.
        urls: where it can be had, tried in this order, in the forms that `promptgen.model_files.store` lists; none
            where its publisher gives no direct link.
        sha256: of the whole file, 64 hexadecimal digits; null where its publisher tells none, so that the first fetch
            records it.
        size: bytes; null where its publisher tells none.
        member: path of the file inside an archive (zip or tar), where that is what the URLs give.
    """

    file: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    urls: list[URL]
    sha256: SHA256 | None = None
    size: Annotated[int, Field(gt=0)] | None = None
    member: str | None = None

    @field_validator("member")
    @classmethod
    def _stays_inside(cls, member: str | None) -> str | None:
        if member is not None and (member.startswith("/") or {"", ".", ".."} & set(member.split("/"))):
            raise ValueError("should be a path inside the archive, without empty parts, . and ..")
        return member


class Cost(Section):
    """What a model costs, in 32-bit numbers; measured by `promptgen cost`.

    Attributes:
        parameters: number of its weights.
        gmac: multiply-accumulates of one image, in units of 10^9; without gradient, and without what
            `promptgen.experiments.costs` leaves out.
        weights_mib: memory of weights and buffers, MiB.
        forward_mib: memory that one image takes beside them, without gradient, MiB.
        backward_mib: the same with the gradient back to what went in.
    """

    parameters: Annotated[int, Field(ge=0)]
    gmac: Annotated[float, Field(ge=0)]
    weights_mib: Annotated[float, Field(ge=0)]
    forward_mib: Annotated[float, Field(ge=0)]
    backward_mib: Annotated[float, Field(ge=0)]

    def memory_mib(self, batch: int, *, gradient: bool) -> float:
        """Return the memory, MiB, that a batch is expected to take, weights included."""
        return self.weights_mib + batch * (self.backward_mib if gradient else self.forward_mib)


class Card(Section):
    """What is known of one model.

    Attributes:
        kind: what the model is for.
        type: key of the function that builds the model, in `promptgen.config.build.MODELS`.
        files: its files, in the order in which that function takes them.
        licence: name of the licence.
        arguments: keyword arguments for the function that builds the model.
        training: how the files were made: command, seeds and the like.
        quality: measured figures by name.
        cost: measured figures of its network; null where nobody has measured them.
        note: anything else worth knowing.
    """

    kind: Literal["generator", "classifier", "clip", "pose", "identity", "features", "multipliers"]
    type: Name
    files: Annotated[list[CardFile], Field(min_length=1)]
    licence: str
    arguments: Annotated[dict[str, Any], Field(default_factory=dict)]
    training: Annotated[dict[str, Any], Field(default_factory=dict)]
    quality: Annotated[dict[str, Any], Field(default_factory=dict)]
    cost: Cost | None = None
    note: str = ""


def load_cards(models: Path | None = None) -> dict[str, Card]:
    """Return every card by name: those of this package, and those of the `cards.yaml` beside the folder `models`.

    Raises:
        ConfigError: a card is not one, or two cards have the same name.
    """
    paths = sorted(Path(promptgen.__file__).parent.rglob(CARDS_NAME))
    if models is not None and (own := models.parent / CARDS_NAME).is_file():
        paths.append(own)
    return read_cards(paths)


def read_cards(paths: list[Path]) -> dict[str, Card]:
    """Return the cards of some files; errors as of `load_cards`."""
    cards: dict[str, Card] = {}
    for path in paths:
        for name, data in (read_yaml(path) or {}).items():
            if name in cards:
                raise ConfigError(f"{path}: the card {name} exists twice; rename one")
            try:
                cards[name] = validate(Card, data)
            except ConfigError as error:
                raise ConfigError(f"{path}: card {name}: {error}") from error
    return cards


def find_card(name: str, models: Path | None = None) -> Card:
    """Return the card called `name`; `models` as of `load_cards`.

    Raises:
        ConfigError: there is none; close names are told.
    """
    cards = load_cards(models)
    if name not in cards:
        raise ConfigError(f"there is no model called {name!r}{did_you_mean(name, cards)}")
    return cards[name]
