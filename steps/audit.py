"""Measure the bias of images that were made elsewhere, or of labels in a CSV file: a table, JSON and an HTML page.

Images are taken as they are; one that is not square is cut to the square in its centre. The published classifiers
expect aligned faces, and nothing here aligns them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from promptgen.audit import SAMPLING, Sampling, audit
from promptgen.build import build_classifier
from promptgen.errors import ConfigError, DataError
from promptgen.files import atomic_write, write_json
from promptgen.images import ImageBatch, Unread, find_files, read_batches
from promptgen.labelling import Confusion, Labeller, Labels, card_confusions, read_confusion, read_labels
from promptgen.perception.base import Classifier
from promptgen.perception.labels import classes, target_shares
from promptgen.reporting.audit_page import render
from promptgen.reporting.audit_tables import text
from promptgen.reporting.audit_words import AuditRun, ImageSet
from promptgen.specs import ReaderSpec
from promptgen.strict import Section, read_yaml, validate
from steps.command import command
from steps.progress import Bar

JSON_NAME = "audit.json"
PAGE_NAME = "index.html"

Targets = Mapping[str, Mapping[str, float]]


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


@dataclass(frozen=True)
class _Read:
    """What was read off one set of images, by the classifier, or in a file, and by the judge."""

    images: ImageSet
    labels: Labels
    judge: Labels | None = None


def run(request: Request, out: Path) -> AuditRun:
    """Write the page and the JSON of an audit into the folder `out`.

    Raises:
        ConfigError: a model, an attribute or a class is unknown, or a target does not sum to one.
        DataError: there is no image, or a file of labels cannot be read.
        ModelFileError: a classifier's weight file has not been fetched.
        StorageError: `out` cannot be written.
    """
    found = _audit_images(request) if request.classifier else _audit_files(request)
    write_json(out / JSON_NAME, found.as_dict())
    atomic_write(out / PAGE_NAME, render(found))
    return found


def _audit_images(request: Request) -> AuditRun:
    names = [name for name in (request.classifier, request.judge) if name]
    readers = [build_classifier(reader_spec(name), request.models) for name in names]
    known = readers[0].attributes
    attributes = list(request.attributes or known)
    targets = parse_targets(request.targets, attributes)
    for attribute in attributes:  # a wrong name is told before hours of reading
        target_shares(classes(known, attribute), targets.get(attribute))
    folders = [folder for folder in (request.source, request.compare) if folder]
    files = [_files(folder) for folder in folders]  # an empty one is told before hours of reading the other
    sets = [
        _read(request, folder, names, readers[:1] if number else readers)
        for number, (folder, names) in enumerate(zip(folders, files, strict=True))
    ]
    return _audited(request, attributes, targets, sets)


def _files(folder: Path) -> list[str]:
    if not (names := find_files(folder)):
        raise DataError(f"{folder} has no files; give a folder of images")
    return names


def _audit_files(request: Request) -> AuditRun:
    """Audit labels; their classes are those that occur anywhere, or are wanted."""
    paths = [path for path in (request.source, request.compare) if path]
    read = [read_labels(path) for path in paths]
    attributes = list(request.attributes or [name for name in read[0].repeated() if name != request.groups])
    if not attributes:
        columns = ", ".join(read[0].attributes)
        raise DataError(
            f"{paths[0]} has nothing to count: apart from groups, none of its columns ({columns}) has a label twice; "
            "name one with --attribute, and separate columns by commas"
        )
    targets = parse_targets(request.targets, attributes)
    for also in ({name: list(target) for name, target in targets.items()}, *(each.attributes for each in read)):
        read = [each.extended(also) for each in read]
    if isinstance(request.groups, str):
        read = [each.grouped(request.groups) for each in read]
    sets = [_Read(ImageSet(str(path), each.n), each) for path, each in zip(paths, read, strict=True)]
    return _audited(request, attributes, targets, sets)


def _audited(request: Request, attributes: Sequence[str], targets: Targets, sets: Sequence[_Read]) -> AuditRun:
    here, other = sets[0], sets[1] if len(sets) > 1 else None
    confusions = _confusions(request, here.labels)
    if unused := sorted({each.attribute for each in map(read_confusion, request.confusions)} - {*attributes}):
        raise ConfigError(f"a confusion table is of {unused[0]}, but the attributes are {', '.join(attributes)}")
    return AuditRun(
        images=here.images,
        audits=[
            audit(
                here.labels,
                attribute,
                target=targets.get(attribute),
                judge=here.judge,
                other=other.labels if other else None,
                confusion=confusions.get(attribute),
                sampling=request.sampling,
            )
            for attribute in attributes
        ],
        sampling=request.sampling,
        classifier=request.classifier,
        judge=request.judge,
        other=other.images if other else None,
    )


def _read(request: Request, folder: Path, names: Sequence[str], classifiers: Sequence[Classifier]) -> _Read:
    """Return what classifiers read off the images in files below a folder."""
    labellers = [Labeller(each, device=request.device) for each in classifiers]
    seen, unread = list[str](), list[Unread]()
    with Bar(str(folder)) as bar:
        for each in read_batches(folder, names, batch=request.batch, size=request.size, unread=unread.append):
            _update(labellers, each)
            seen += each.names
            bar.progress(len(seen) + len(unread), len(names))
    if not seen:
        why = f"{_printable(unread[0].name)}: {unread[0].reason}"
        raise DataError(f"{folder} has no image among {len(names)} files, {why}; give a folder of images")
    groups = [_printable(name.rpartition("/")[0].partition("/")[0] or ".") for name in seen] if request.groups else []
    labels = [replace(labeller.compute(), groups=groups) for labeller in labellers]
    told = [Unread(_printable(each.name), each.reason) for each in unread]
    return _Read(ImageSet(str(folder), len(seen), told), labels[0], labels[1] if len(labels) > 1 else None)


def _update(labellers: Sequence[Labeller], batch: ImageBatch) -> None:
    """Let classifiers read a batch; if one cannot, the error names the first of the batch's files."""
    try:
        for labeller in labellers:
            labeller.update(batch.images)
    except DataError as error:
        raise DataError(f"{_printable(batch.names[0])}: {error}; see --size and --batch") from error


def _printable(name: str) -> str:
    """Return a file's name for people; its control characters, and bytes that are no UTF-8, are escaped."""
    return name if name.isprintable() else name.encode("unicode_escape").decode()


def _confusions(request: Request, labels: Labels) -> dict[str, Confusion]:
    """Return the confusion tables of the classifier's cards, and instead of these the user's own, by attribute."""
    spec = request.classifier and reader_spec(request.classifier)
    found = card_confusions(spec, labels.attributes, request.models) if spec else {}
    return found | {each.attribute: each for each in map(read_confusion, request.confusions)}


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


def parse(words: Sequence[str] | None = None) -> tuple[Request, Path]:
    """Return what a command line asks for, and the folder for it; one that contradicts itself ends with status 2."""
    parser = _parser()
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
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


def main() -> None:
    """Run the step from the command line."""
    request, out = parse()
    print(text(run(request, out)))
    print(out / PAGE_NAME)


if __name__ == "__main__":
    command(main)
