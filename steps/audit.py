"""Measure the bias of images that were made elsewhere, or of labels in a CSV file: a table, JSON and an HTML page.

An image that is not square is cropped to the square in its centre. The published classifiers expect aligned faces;
this step aligns none.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and argument errors appear at once
    from promptgen.command_line import run_as

    run_as("audit")

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from promptgen.audit.confusion import Confusion, card_confusions, read_confusion
from promptgen.audit.figures import audit
from promptgen.audit.label_file import LabelFile, alike_columns, alike_spelled, label_file, not_counted
from promptgen.audit.labels import Labels
from promptgen.audit.page import render
from promptgen.audit.request import Request, Targets, named_in_targets, parse_targets, reader_spec
from promptgen.audit.spelling import alike
from promptgen.audit.tables import text
from promptgen.audit.words import AuditRun, ImageSet
from promptgen.csv_file import read_csv
from promptgen.engine.base import in_order
from promptgen.engine.config import open_engine
from promptgen.errors import ConfigError, DataError
from promptgen.files import atomic_write, write_json
from promptgen.labels import classes, factors, target_shares
from promptgen.progress import Bar

if TYPE_CHECKING:  # files of labels need no torch
    from promptgen.audit.folder import LabelledFiles

JSON_NAME = "audit.json"
PAGE_NAME = "index.html"


@dataclass(frozen=True)
class _Read:
    """A set of images with the labels of the classifier, or of a file, and those of the judge."""

    images: ImageSet
    labels: Labels
    judge: Labels | None = None


def run(request: Request, out: Path) -> AuditRun:
    """Write the page and the JSON of an audit into the folder `out`.

    Raises:
        ConfigError: a model, an attribute or a class is unknown, or a target does not sum to one.
        DataError: a folder has no images, or a file of labels cannot be read.
        ModelFileError: a classifier's weight file has not been fetched.
        StorageError: `out` cannot be written.
    """
    outcome = _audit_images(request) if request.classifier else _audit_files(request)
    write_json(out / JSON_NAME, outcome.as_dict())
    atomic_write(out / PAGE_NAME, render(outcome))
    return outcome


def _audit_images(request: Request) -> AuditRun:
    from promptgen.audit.images import find_files
    from promptgen.config.build import build_classifier
    from steps.auditing.labelling import LabellingRecipe, shards

    names = [name for name in (request.classifier, request.judge) if name]
    specs = [(name, reader_spec(name)) for name in names]
    readers = [build_classifier(spec, request.models) for _, spec in specs]
    labels = readers[0].attributes
    attributes = list(request.attributes or labels)
    targets = parse_targets(request.targets, attributes)
    for attribute in attributes:  # fail on a wrong name before hours of reading
        target_shares(classes(labels, attribute), targets.get(attribute))
    confusions = _confusions(request, labels, attributes)
    folders = [folder for folder in (request.source, request.compare) if folder]
    files = [find_files(folder) for folder in folders]  # fail on an empty folder before hours of reading the other one
    wanted = {factor for attribute in attributes for factor in factors(labels, attribute)}
    sets = []
    for folder, paths in zip(folders, files, strict=True):
        recipe = LabellingRecipe(
            folder.absolute(),
            tuple(specs if folder is request.source else specs[:1]),
            frozenset(wanted),
            request.models.absolute(),
            device=request.device,
            batch=request.batch,
            size=request.size,
        )
        results = open_engine(request.engine).map(recipe, shards(paths), recipe.labelling(readers))
        sets.append(_read(folder, len(paths), results, bool(request.groups)))
    return _audited(request, attributes, targets, confusions, sets)


def _audit_files(request: Request) -> AuditRun:
    """Audit files of labels; the classes are the labels that occur in a file or in a target."""
    files = _label_files(request)
    apart = [request.groups] if isinstance(request.groups, str) else []
    files = alike_columns(files, [*request.attributes, *apart])
    columns = list(files[0].labels.attributes)
    reasons = {} if request.attributes else not_counted(files, [*apart, *named_in_targets(request.targets, columns)[0]])
    attributes = list(request.attributes or [name for name in columns if name not in apart and name not in reasons])
    if not attributes:
        columns_left_out = ", ".join(f"{name} ({reason})" for name, reason in reasons.items()) or "groups alone"
        raise DataError(f"{files[0].path} has no column to count: {columns_left_out}; name a column with --attribute")
    targets = parse_targets(request.targets, attributes)
    sets = [file.labels for file in files]
    counted = _columns(files, [*attributes, *apart])
    for extra in ({name: list(target) for name, target in targets.items()}, *(labels.attributes for labels in sets)):
        sets = [labels.extended(extra) for labels in sets]
    similar = {name: alike(sets[0].attributes[name]) for name in counted}
    if apart:
        sets = [labels.grouped(apart[0]) for labels in sets]
    confusions = _confusions(request, sets[0].attributes, attributes)
    read = [_Read(_image_set(file, counted), labels) for file, labels in zip(files, sets, strict=True)]
    return replace(
        _audited(request, attributes, targets, confusions, read),
        not_counted=reasons,
        alike={name: groups for name, groups in similar.items() if groups},
        one_sided=_one_sided(files, counted),
    )


def _label_files(request: Request) -> list[LabelFile]:
    paths = [path for path in (request.source, request.compare) if path]
    tables = [read_csv(path) for path in paths]
    _, exceptions = named_in_targets(request.targets, tables[0].names)
    files = [label_file(path, table, exceptions) for path, table in zip(paths, tables, strict=True)]
    return alike_spelled(files) if request.normalise else files


def _columns(files: Sequence[LabelFile], attributes: Sequence[str]) -> list[str]:
    """Return the columns of attributes, of which some are products.

    Raises:
        ConfigError: a file lacks one.
        DataError: a file has no label of one.
    """
    columns = list[str]()
    for file in files:
        available = file.labels.attributes
        for attribute in attributes:
            for name in factors([*available, *file.uncountable], attribute):
                file.require_countable(name)
            try:
                classes(available, attribute)
            except ConfigError as error:
                raise ConfigError(f"{file.path}: {error}") from error
            if not file.labels.counts(attribute).any():
                raise DataError(f"{file.path}: no row has a label of {attribute}; fill it in, or name another column")
            columns += factors(available, attribute)
    return list(dict.fromkeys(columns))


def _image_set(file: LabelFile, columns: Sequence[str]) -> ImageSet:
    missing = {name: lines for name in columns if (lines := file.missing(name))}
    return ImageSet(str(file.path), len(file.lines), missing=missing, headless=file.headless)


def _one_sided(files: Sequence[LabelFile], columns: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Return the labels that only one of two files has, by column and file."""
    if len(files) < 2:
        return {}
    one_sided = {}
    for name in columns:
        labels = [{*file.labels.attributes[name]} for file in files]
        only = {str(file.path): sorted(labels[i] - labels[1 - i]) for i, file in enumerate(files)}
        if any(only.values()):
            one_sided[name] = {path: alone for path, alone in only.items() if alone}
    return one_sided


def _audited(
    request: Request,
    attributes: Sequence[str],
    targets: Targets,
    confusions: Mapping[str, Confusion],
    sets: Sequence[_Read],
) -> AuditRun:
    first, other = sets[0], sets[1] if len(sets) > 1 else None
    return AuditRun(
        images=first.images,
        audits=[
            audit(
                first.labels,
                attribute,
                target=targets.get(attribute),
                judge=first.judge,
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


def _read(folder: Path, files: int, results: Iterator[tuple[int, LabelledFiles]], groups: bool) -> _Read:
    """Put together what an engine has read of the files below a folder."""
    from promptgen.audit.folder import labelled_folder

    parts: list[LabelledFiles] = []
    done = 0
    with Bar(str(folder)) as bar:
        for part in in_order(results):
            parts.append(part)
            done += part.n
            bar.progress(done, files)
    read = labelled_folder(folder, parts, groups=groups)
    return _Read(read.images, *read.labels)


def _confusions(
    request: Request, labels: Mapping[str, Sequence[str]], attributes: Sequence[str]
) -> dict[str, Confusion]:
    """Return confusion tables by attribute; the user's tables replace those of the classifier's card."""
    spec = request.classifier and reader_spec(request.classifier)
    tables = card_confusions(spec, labels, request.models) if spec else {}
    user_tables = {table.attribute: table for table in map(read_confusion, request.confusions)}
    if unused := sorted(user_tables.keys() - {*attributes}):
        raise ConfigError(f"got a confusion table of {unused[0]}, but the attributes are {', '.join(attributes)}")
    for attribute, table in user_tables.items():
        table.ordered(classes(labels, attribute))  # fails if the table has other classes
    return tables | user_tables


def run_and_print(request: Request, out: Path) -> None:
    """Write the files of an audit, then print its tables and the path of the page."""
    print(text(run(request, out)))
    print(out / PAGE_NAME)
