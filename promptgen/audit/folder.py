"""Label the images of a folder; files that cannot be read, or that a classifier cannot label, are reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from promptgen.audit.images import ImageBatch, Unread, find_files, read_batches
from promptgen.audit.labelling import Labeller, label
from promptgen.audit.labels import Labels
from promptgen.audit.words import ImageSet
from promptgen.errors import DataError
from promptgen.progress import Bar


@dataclass(frozen=True)
class LabelledFolder:
    """A folder of images and its labels.

    Attributes:
        images: the folder, and what was left out of it.
        labels: labels by each classifier.
    """

    images: ImageSet
    labels: Sequence[Labels]


def files_of(folder: Path) -> list[str]:
    """Return the files below a folder, relative to it.

    Raises:
        DataError: it is no folder, cannot be listed, or has no files.
    """
    if not (names := find_files(folder)):
        raise DataError(f"{folder} has no files, expected images; name a folder of images")
    return names


def read_folder(
    folder: Path,
    names: Sequence[str],
    labellers: Sequence[Labeller],
    *,
    batch: int,
    size: int | None = None,
    groups: bool = False,
) -> LabelledFolder:
    """Label the images in files below a folder.

    Args:
        folder: the folder.
        names: paths relative to it, see `files_of`.
        labellers: the classifiers.
        batch: images at a time.
        size: pixels to resize images to; None keeps their size.
        groups: whether each direct sub-folder is a group.

    Raises:
        DataError: no file can be read, or a classifier refuses a batch.
    """
    seen, unread, unlabelled = list[str](), list[Unread](), list[Unread]()
    with Bar(str(folder)) as bar:
        for part in read_batches(folder, names, batch=batch, size=size, unread=unread.append):
            left_out = _label(labellers, part)
            unlabelled += [Unread(part.names[index], reason) for index, reason in left_out.items()]
            seen += [name for index, name in enumerate(part.names) if index not in left_out]
            bar.progress(len(seen) + len(unread) + len(unlabelled), len(names))
    if not seen:
        firsts = [files[0] for files in (unread, unlabelled) if files]
        reasons = "; ".join(f"{_printable(first.name)}: {first.reason}" for first in firsts)
        raise DataError(f"{folder} has no readable image among {len(names)} files ({reasons}); name a folder of images")
    named = [_printable(name.rpartition("/")[0].partition("/")[0] or ".") for name in seen] if groups else []
    labels = [replace(labeller.compute(), groups=named) for labeller in labellers]
    images = ImageSet(str(folder), len(seen), unread=_with_printable(unread), unlabelled=_with_printable(unlabelled))
    return LabelledFolder(images, labels)


def _label(labellers: Sequence[Labeller], batch: ImageBatch) -> dict[int, str]:
    """Label a batch of images and return which are left out, and why; an error names the first file of the batch."""
    try:
        return label(labellers, batch.images)
    except DataError as error:
        raise DataError(f"{_printable(batch.names[0])}: {error}; see --size and --batch") from error


def _with_printable(files: Sequence[Unread]) -> list[Unread]:
    return [Unread(_printable(file.name), file.reason) for file in files]


def _printable(name: str) -> str:
    """Return a file name with control characters and bytes that are not UTF-8 escaped."""
    return name if name.isprintable() else name.encode("unicode_escape").decode()
