"""Label the images of a folder; files that cannot be read, or that a classifier cannot label, are reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from promptgen.audit.images import Unread, read_batches
from promptgen.audit.labelling import Labeller, label
from promptgen.audit.labels import Labels
from promptgen.audit.spelling import visible
from promptgen.audit.words import ImageSet
from promptgen.errors import DataError


@dataclass(frozen=True)
class LabelledFiles:
    """What became of some files of a folder.

    Attributes:
        names: names of those that were read and labelled.
        labels: their labels by each classifier; empty if there are none.
        unread: those that could not be read as images.
        unlabelled: those that a classifier gave no proper numbers for.
    """

    names: list[str]
    labels: list[Labels]
    unread: list[Unread]
    unlabelled: list[Unread]

    @property
    def n(self) -> int:
        """Number of files."""
        return len(self.names) + len(self.unread) + len(self.unlabelled)


@dataclass(frozen=True)
class LabelledFolder:
    """A folder of images and its labels.

    Attributes:
        images: the folder, and what was left out of it.
        labels: labels by each classifier.
    """

    images: ImageSet
    labels: Sequence[Labels]


def label_files(
    folder: Path, names: Sequence[str], labellers: Sequence[Labeller], *, batch: int, size: int | None = None
) -> LabelledFiles:
    """Label the images in files below a folder.

    Args:
        folder: the folder.
        names: paths relative to it, see `promptgen.audit.images.find_files`.
        labellers: the classifiers, which have labelled no image yet.
        batch: images at a time.
        size: pixels to resize images to; None keeps their size.

    Raises:
        DataError: a classifier refuses a batch; the error names its first file.
    """
    labelled, unread, unlabelled = list[str](), list[Unread](), list[Unread]()
    for part in read_batches(folder, names, batch=batch, size=size, unread=unread.append):
        try:
            left_out = label(labellers, part.images)
        except DataError as error:
            raise DataError(f"{visible(part.names[0])}: {error}; see --size and --batch") from error
        unlabelled += [Unread(part.names[index], reason) for index, reason in left_out.items()]
        labelled += [name for index, name in enumerate(part.names) if index not in left_out]
    return LabelledFiles(
        labelled, [labeller.compute() for labeller in labellers] if labelled else [], unread, unlabelled
    )


def labelled_folder(folder: Path, parts: Sequence[LabelledFiles], *, groups: bool = False) -> LabelledFolder:
    """Put together the files of a folder.

    Args:
        folder: the folder.
        parts: all of its files, in order.
        groups: whether each direct sub-folder is a group.

    Raises:
        DataError: no file could be read and labelled.
    """
    labelled = [name for part in parts for name in part.names]
    unread = [Unread(visible(file.name), file.reason) for part in parts for file in part.unread]
    unlabelled = [Unread(visible(file.name), file.reason) for part in parts for file in part.unlabelled]
    if not labelled:
        reasons = "; ".join(f"{files[0].name}: {files[0].reason}" for files in (unread, unlabelled) if files)
        n = sum(part.n for part in parts)
        raise DataError(f"{folder} has no readable image among {n} files ({reasons}); name a folder of images")
    named = [visible(name.rpartition("/")[0].partition("/")[0] or ".") for name in labelled] if groups else []
    labels = [
        Labels.of_parts(pieces, named) for pieces in zip(*(part.labels for part in parts if part.names), strict=True)
    ]
    return LabelledFolder(ImageSet(str(folder), len(labelled), unread, unlabelled), labels)
