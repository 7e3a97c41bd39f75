"""What `steps.audit` is asked for: its command line, and the words in it for classifiers and wanted shares."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from promptgen.audit.figures import SAMPLING, Sampling
from promptgen.config.specs import ReaderSpec
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


def parse(words: Sequence[str] | None = None, description: str | None = None) -> tuple[Request, Path]:
    """Return what a command line asks for, and the folder for it; one that contradicts itself ends with status 2."""
    parser = _parser(description)
    given = parser.parse_args(words)
    if given.images and not given.classifier:
        parser.error("--images needs a --classifier, such as fairface")
    if given.labels and (given.classifier or given.judge):
        parser.error("--labels has labels already: leave --classifier and --judge out")
    if given.groups is not False and isinstance(given.groups, str) != bool(given.labels):
        parser.error("--groups takes a column with --labels, and nothing with --images")
    if not 0 < given.confidence < 1:
        parser.error("--confidence lies between 0 and 1, such as 0.95")
    same = {field.name for field in fields(Request)}
    request = Request(
        source=given.images or given.labels,
        sampling=Sampling(given.confidence, given.resamples, given.seed),
        **{name: value for name, value in vars(given).items() if name in same},
    )
    return request, given.out


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, metavar="DIR", help="folder of images, with all folders below it")
    source.add_argument("--labels", type=Path, metavar="CSV", help="labels: a column per attribute, a row per image")
    parser.add_argument("--classifier", metavar="NAME", help="card, module:factory or YAML file of a classifier")
    parser.add_argument("--judge", metavar="NAME", help="another classifier, whose opinion is shown beside")
    parser.add_argument("--compare", type=Path, metavar="PATH", help="another folder, or CSV file, to compare with")
    parser.add_argument(
        "--attribute",
        dest="attributes",
        nargs="+",
        default=[],
        metavar="NAME",
        help='such as gender, or "race x gender" (default: all)',
    )
    parser.add_argument(
        "--target",
        dest="targets",
        action="append",
        default=[],
        metavar="SHARES",
        help='"Male=0.4, Female=0.6", "gender: ..." (default: uniform)',
    )
    parser.add_argument(
        "--confusion",
        dest="confusions",
        action="append",
        default=[],
        type=Path,
        metavar="CSV",
        help="how often a class is read as which",
    )
    parser.add_argument(
        "--groups",
        nargs="?",
        const=True,
        default=False,
        metavar="COLUMN",
        help="compare groups, such as occupations: each direct sub-folder is one; of --labels, each label of a column",
    )
    parser.add_argument("--size", type=positive, help="resize images to so many pixels (default: leave them)")
    parser.add_argument("--batch", type=positive, default=32, help="images at a time (default: 32)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, auto (default: cpu)")
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of weight files (default: models)")
    parser.add_argument("--confidence", type=float, default=0.95, help="of every interval (default: 0.95)")
    parser.add_argument("--resamples", type=positive, default=1000, help="simulations per interval (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulations (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("reports/audit"), help="folder (default: reports/audit)")
    return parser


def positive(word: str) -> int:
    """Return a whole number from 1 on; for argparse."""
    if (number := int(word)) < 1:
        raise argparse.ArgumentTypeError(f"{word} is not positive")
    return number


class _HasReader(Section):
    classifier: ReaderSpec


def reader_spec(name: str) -> ReaderSpec:
    """Return the classifier that a word of the command line stands for.

    Args:
        name: name of a card; ``module:factory`` of the user's own; or a YAML file with what params.yaml would have.

    Raises:
        ConfigError: it is none of them.
    """
    content: object = name
    if name.endswith((".yaml", ".yml")):
        content = read_yaml(name)
    elif ":" in name:
        content = {"type": "custom", "factory": name}
    return validate(_HasReader, {"classifier": content}).classifier


def parse_targets(texts: Sequence[str], attributes: Sequence[str]) -> Targets:
    """Return wanted shares by attribute; an attribute that is not in it is wanted uniform.

    Args:
        texts: each ``uniform``, or such as ``"Male=0.4, Female=0.6"``; with ``"gender: "`` before it where there are
            several attributes.
        attributes: those that are audited.

    Raises:
        ConfigError: a text cannot be read, or is not for one of them.
    """
    targets: dict[str, dict[str, float]] = {}
    for each in texts:
        head, colon, rest = each.partition(":")
        named = bool(colon) and "=" not in head
        if not named and each.strip() != "uniform" and len(attributes) > 1:
            raise ConfigError(f'the target "{each}" is for which attribute? write "{attributes[0]}: {each}"')
        name, shares = (head.strip(), rest.strip()) if named else (attributes[0], each.strip())
        if name not in attributes:
            raise ConfigError(f'the target "{each}" is for {name}, but the attributes are {", ".join(attributes)}')
        if shares != "uniform":
            targets[name] = _shares(shares)
    return targets


def _shares(shares: str) -> dict[str, float]:
    try:
        pairs = [part.rpartition("=") for part in shares.split(",")]
        return {label.strip(): float(share) for label, _, share in pairs}
    except ValueError as error:
        raise ConfigError(f'the target "{shares}" cannot be read; write "Male=0.4, Female=0.6"') from error
