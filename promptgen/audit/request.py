"""The request for an audit, and the parsers of its classifiers and target shares."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from promptgen.audit.figures import SAMPLING, Sampling
from promptgen.config.models import ReaderSpec
from promptgen.config.targets import is_choices, shares_of_choices
from promptgen.engine.config import InlineConfig, ProcessConfig, RayConfig
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
        engine: where images are classified.
        normalise: whether labels in a file that differ only in spelling are one class.
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
    normalise: bool = False
    engine: InlineConfig | ProcessConfig | RayConfig = field(default_factory=InlineConfig)


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
        texts: ``"uniform"``, shares such as ``"Male=0.4, Female=0.6"`` or a choice such as ``"{40::Male|60::Female}"``,
            prefixed by ``"gender: "`` if there are several attributes.
        attributes: the audited attributes.

    Raises:
        ConfigError: a text cannot be parsed, or names an attribute that is not audited.
    """
    targets: dict[str, dict[str, float]] = {}
    seen: set[str] = set()
    for text in texts:
        name, shares = _addressed(text, attributes)
        if name in seen:
            raise ConfigError(f"{name} has two targets; give one")
        seen.add(name)
        if shares != "uniform":
            targets[name] = shares_of_choices(shares) if is_choices(shares) else _shares(shares)
    return targets


def named_in_targets(texts: Sequence[str], columns: Sequence[str]) -> tuple[list[str], set[str]]:
    """Return the columns and the labels that target shares name.

    Args:
        texts: see `parse_targets`.
        columns: columns of a file of labels.
    """
    names, labels = list[str](), set[str]()
    for text in texts:
        name = _prefix(text, columns)
        names += [] if name is None else [name]
        shares = text if name is None else _rest(text, name)
        labels |= set(shares_of_choices(shares) if is_choices(shares) else [m[1] for m in SHARE.finditer(shares)])
    return names, labels


SHARE = re.compile(r"\s*(.+?)\s*=\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(?:,|$)")
"""A label and its share, up to a comma; a label may itself contain commas and equals signs."""


def _addressed(text: str, attributes: Sequence[str]) -> tuple[str, str]:
    """Return the attribute that a target is for, and the rest of its text."""
    name = _prefix(text, attributes)
    if name is not None:
        return name, _rest(text, name)
    head, colon, _ = text.partition(":")
    if colon and "=" not in head and not is_choices(text):
        raise ConfigError(f'the target "{text}" is for {head.strip()}, but the attributes are {", ".join(attributes)}')
    if text.strip() != "uniform" and len(attributes) > 1:
        raise ConfigError(f'the target "{text}" names no attribute; write "{attributes[0]}: {text}"')
    return attributes[0], text.strip()


def _prefix(text: str, attributes: Sequence[str]) -> str | None:
    """Return the attribute, the longest that fits, which a text begins with before a colon."""
    fitting = [name for name in attributes if re.match(rf"{re.escape(name)}\s*:", text.strip())]
    return max(fitting, key=len, default=None)


def _rest(text: str, name: str) -> str:
    return text.strip()[len(name) :].lstrip().removeprefix(":").strip()


def _shares(text: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    end = 0
    while end < len(text) or not shares:
        match = SHARE.match(text, end)
        if match is None:
            raise ConfigError(f'the target "{text}" cannot be parsed; write "Male=0.4, Female=0.6"')
        if match[1] in shares:
            raise ConfigError(f'the target "{text}" has two shares of {match[1]}; give one')
        shares[match[1]], end = float(match[2]), match.end()
    return shares
