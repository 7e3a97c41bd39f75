"""What an audit is asked for, and the words of its command line for classifiers and target shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from promptgen.audit.figures import SAMPLING, Sampling
from promptgen.config.models import ReaderSpec
from promptgen.errors import ConfigError
from promptgen.strict import Section, read_yaml, validate

Targets = Mapping[str, Mapping[str, float]]
"""Wanted share of each class, by attribute."""


@dataclass(frozen=True)
class Request:
    """What to audit, and how.

    Attributes:
        source: folder of images; the CSV file of labels if there is no classifier.
        classifier: see `reader_spec`; None where `source` has the labels.
        judge: a second classifier.
        compare: another folder, or CSV file, to compare with.
        attributes: attributes and products; none asks for all.
        targets: wanted shares as text, see `parse_targets`.
        confusions: CSV files with confusion tables; those on the classifier's card need not be given.
        size: pixels that images are resized to; None leaves them.
        batch: images at a time.
        device: where classifiers run.
        models: folder of weight files.
        sampling: how intervals are made.
        groups: whether each direct sub-folder is a group; for labels, the column that has the groups.
    """

    source: Path
    classifier: str | None = None
    judge: str | None = None
    compare: Path | None = None
    attributes: Sequence[str] = ()
    targets: Sequence[str] = ()
    confusions: Sequence[Path] = ()
    size: int | None = None
    batch: int = 32
    device: str = "cpu"
    models: Path = Path("models")
    sampling: Sampling = SAMPLING
    groups: bool | str = False


class _HasReader(Section):
    classifier: ReaderSpec


def reader_spec(name: str) -> ReaderSpec:
    """Return the classifier that a word of the command line stands for.

    Args:
        name: name of a card; ``module:factory`` of the user's own; or a YAML file with its section of params.yaml.

    Raises:
        ConfigError: it is none of these.
    """
    content: object = name
    if name.endswith((".yaml", ".yml")):
        content = read_yaml(name)
    elif ":" in name:
        content = {"type": "custom", "factory": name}
    return validate(_HasReader, {"classifier": content}).classifier


def parse_targets(texts: Sequence[str], attributes: Sequence[str]) -> Targets:
    """Return target shares by attribute; an attribute that is left out has a uniform target.

    Args:
        texts: each ``uniform``, or such as ``"Male=0.4, Female=0.6"``; after ``"gender: "`` if there are several
            attributes.
        attributes: the audited attributes.

    Raises:
        ConfigError: a text cannot be read, or names another attribute.
    """
    targets: dict[str, dict[str, float]] = {}
    for text in texts:
        head, colon, rest = text.partition(":")
        named = bool(colon) and "=" not in head
        if not named and text.strip() != "uniform" and len(attributes) > 1:
            raise ConfigError(f'the target "{text}" is for which attribute? write "{attributes[0]}: {text}"')
        name, shares = (head.strip(), rest.strip()) if named else (attributes[0], text.strip())
        if name not in attributes:
            raise ConfigError(f'the target "{text}" is for {name}, but the attributes are {", ".join(attributes)}')
        if shares != "uniform":
            targets[name] = _shares(shares)
    return targets


def _shares(shares: str) -> dict[str, float]:
    try:
        pairs = [part.rpartition("=") for part in shares.split(",")]
        return {label.strip(): float(share) for label, _, share in pairs}
    except ValueError as error:
        raise ConfigError(f'the target "{shares}" cannot be read; write "Male=0.4, Female=0.6"') from error
