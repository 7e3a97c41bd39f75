"""Model cards: files, licence and build arguments of each model, read from the `cards.yaml` of each sub-package.

A `cards.yaml` beside the project's models folder adds the user's own cards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

import promptgen
from promptgen.errors import ConfigError
from promptgen.model_files.sources import kind_of
from promptgen.strict import Name, Section, did_you_mean, read_yaml, validate

CARDS_NAME = "cards.yaml"


def _known(url: str) -> str:
    kind_of(url)
    return url


URL = Annotated[str, AfterValidator(_known)]
SHA256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class CardFile(Section):
    """One file of a model.

    Attributes:
        file: path of the file in the model's folder, usually just its name.
        urls: sources of the file, tried in this order, in the forms that `promptgen.model_files.store` lists; empty if
            there is no direct link.
        sha256: checksum of the whole file, 64 hexadecimal digits; null if it is unknown: the first fetch records it.
        size: size in bytes; null if it is unknown.
        member: path of the file inside the archive (zip or tar) at the URLs; null if they give the file itself.
    """

    file: Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")]
    urls: list[URL]
    sha256: SHA256 | None = None
    size: Annotated[int, Field(gt=0)] | None = None
    member: str | None = None

    @field_validator("member")
    @classmethod
    def _stays_inside(cls, member: str | None) -> str | None:
        if member is not None and (member.startswith("/") or {"", ".", ".."} & set(member.split("/"))):
            raise ValueError("should be a path inside the archive, without empty parts, `.` or `..`")
        return member

    @model_validator(mode="after")
    def _names_one_member(self) -> Self:
        naming = [kind.form for kind in map(kind_of, self.urls) if kind.names_member]
        if self.member is not None and naming:
            raise ValueError(f"member should be left out, since {naming[0]} names the file itself")
        return self


class Cost(Section):
    """Cost of a model in single precision, measured by `promptgen cost`.

    Attributes:
        parameters: number of weights.
        gmac: multiply-accumulate operations per image, 10^9; without gradient, and without the operations that
            `promptgen.experiments.costs` excludes.
        weights_mib: memory of weights and buffers, MiB.
        forward_mib: additional memory per image without gradient, MiB.
        backward_mib: additional memory per image with the gradient with respect to the input, MiB.
    """

    parameters: Annotated[int, Field(ge=0)]
    gmac: Annotated[float, Field(ge=0)]
    weights_mib: Annotated[float, Field(ge=0)]
    forward_mib: Annotated[float, Field(ge=0)]
    backward_mib: Annotated[float, Field(ge=0)]

    def memory_mib(self, batch: int, *, gradient: bool) -> float:
        """Return the expected memory of a batch, weights included, MiB."""
        return self.weights_mib + batch * (self.backward_mib if gradient else self.forward_mib)


class Card(Section):
    """Card of one model.

    Attributes:
        kind: what the model is for.
        type: key of the function that builds the model, in `promptgen.config.build.FACTORIES`.
        files: its files, in the order in which that function expects them.
        licence: name of the licence.
        arguments: keyword arguments for the function that builds the model.
        training: how the files were made, such as command and seeds.
        quality: quality figures by name.
        cost: measured cost of the network; null if it has not been measured.
        note: further remarks.
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
    """Return all cards by name: those of this package and those of the `cards.yaml` beside the folder `models`.

    A file is parsed again only after it has changed. The returned cards are copies, which the caller may change.

    Raises:
        ConfigError: a card has an unknown, missing or wrong key, or two cards have the same name.
    """
    return {name: card.model_copy(deep=True) for name, card in _parsed(_versions(models)).items()}


def find_card(name: str, models: Path | None = None) -> Card:
    """Return the card called `name`; for `models`, see `load_cards`.

    Raises:
        ConfigError: a card is invalid, as for `load_cards`, or there is no such card; the error names similar ones.

    Example:
        >>> find_card("fairface").kind
        'classifier'
    """
    cards = _parsed(_versions(models))
    if name not in cards:
        raise ConfigError(f"there is no model called {name!r}{did_you_mean(name, cards)}")
    return cards[name].model_copy(deep=True)


def read_cards(paths: Iterable[Path]) -> dict[str, Card]:
    """Return the cards in a number of files; for errors, see `load_cards`."""
    cards: dict[str, Card] = {}
    for path in paths:
        content = read_yaml(path)
        content = {} if content is None else content
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            raise ConfigError(f"{path}: expected cards by name, such as `my-model: {{kind: generator, ...}}`")
        for name, data in content.items():
            if name in cards:
                raise ConfigError(f"{path}: the card {name} exists twice; rename one")
            try:
                cards[name] = validate(Card, data)
            except ConfigError as error:
                raise ConfigError(f"{path}: card {name}: {error}") from error
    return cards


Version = tuple[Path, int, int]
"""Path of a file, time of its last change (nanoseconds) and its size (bytes)."""


def _versions(models: Path | None) -> tuple[Version, ...]:
    paths = _packaged()
    if models is not None and (user_cards := models.parent / CARDS_NAME).is_file():
        paths = (*paths, user_cards.absolute())
    return tuple((path, (status := path.stat()).st_mtime_ns, status.st_size) for path in paths)


@cache
def _packaged() -> tuple[Path, ...]:
    return tuple(sorted(Path(promptgen.__file__).parent.rglob(CARDS_NAME)))


@lru_cache(maxsize=4)
def _parsed(versions: tuple[Version, ...]) -> Mapping[str, Card]:
    return read_cards(path for path, _, _ in versions)
