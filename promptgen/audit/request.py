"""The request for an audit, and the parsers of its classifiers and target shares."""

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
    """What to audit, and with which settings.

    Attributes:
        source: folder of images; without a classifier, a CSV file of labels.
        classifier: the classifier, see `reader_spec`; None if `source` is a file of labels.
        judge: a second classifier; None without one.
        compare: another folder or CSV file to compare with.
        attributes: attributes and products of attributes; empty means all.
        targets: target shares as text, see `parse_targets`.
        confusions: CSV files with confusion tables, in addition to those on the classifier's card.
        size: pixels to resize images to; None keeps their size.
        batch: number of images per batch.
        device: device on which the classifiers run.
        models: folder of the weight files.
        sampling: settings of intervals and tests.
        groups: whether each direct sub-folder is a group; for labels, the name of the column with the groups.
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
    """Return the specification of a classifier named on the command line.

    Args:
        name: the name of a card, ``module:factory`` of a custom classifier, or the path of a YAML file with an entry
            as in params.yaml.

    Raises:
        ConfigError: the file is missing or does not describe a classifier.
    """
    content: object = name
    if name.endswith((".yaml", ".yml")):
        content = read_yaml(name)
    elif ":" in name:
        content = {"type": "custom", "factory": name}
    return validate(_HasReader, {"classifier": content}).classifier


def parse_targets(texts: Sequence[str], attributes: Sequence[str]) -> Targets:
    """Return target shares by attribute; attributes that are not listed have a uniform target.

    Args:
        texts: ``"uniform"`` or shares such as ``"Male=0.4, Female=0.6"``, prefixed by ``"gender: "`` if there are
            several attributes.
        attributes: the audited attributes.

    Raises:
        ConfigError: a text cannot be parsed, or names an attribute that is not audited.
    """
    targets: dict[str, dict[str, float]] = {}
    for text in texts:
        head, colon, rest = text.partition(":")
        named = bool(colon) and "=" not in head
        if not named and text.strip() != "uniform" and len(attributes) > 1:
            raise ConfigError(f'the target "{text}" names no attribute; write "{attributes[0]}: {text}"')
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
        raise ConfigError(f'the target "{shares}" cannot be parsed; write "Male=0.4, Female=0.6"') from error
