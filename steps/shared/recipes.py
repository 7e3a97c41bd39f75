"""What a worker needs to do a part of a pass: parsed parameters, weight files, and what earlier steps have written."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import filelock

import promptgen
from promptgen.config.build import identities
from promptgen.engine.base import R, Recipe, S
from promptgen.errors import ChecksumError, ModelFileError
from promptgen.files import sha256_of
from promptgen.model_files.store import fetch, resolve
from steps.shared.common import Pass

FETCH_LOCK = ".fetch.lock"


@dataclass(frozen=True)
class PassRecipe(Recipe[S, R]):
    """Base of the recipes of a pass.

    Attributes:
        run_pass: the pass.
    """

    run_pass: Pass

    def prepare(self) -> None:
        """Fetch the weight files that are missing on this machine; another file in the place of one is refused."""
        for name in self.run_pass.params.cards:
            bring(name, self.run_pass.project.models)

    def inputs(self) -> Mapping[str, str]:
        """Return the sha256 of the files of earlier steps that results depend on."""
        return {}

    def identity(self) -> dict[str, str]:
        """Return the sha256 of the code, of the models and of the files of earlier steps, by name."""
        project = self.run_pass.project
        models = identities(project.params.specs, project.models)
        return {
            "version of promptgen": code_sha256(),
            "precision": project.params.precision,
            **models,
            **self.inputs(),
        }


def bring(name: str, models: Path) -> None:
    """Fetch the files of a model unless they are there; the workers of one machine wait for each other."""
    if _is_there(name, models):
        return
    models.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(models / FETCH_LOCK):
        if not _is_there(name, models):
            fetch(name, models)


def _is_there(name: str, models: Path) -> bool:
    try:
        resolve(name, models)
    except ChecksumError:
        raise
    except ModelFileError:
        return False
    return True


@functools.cache
def code_sha256() -> str:
    """Return the sha256 of the library's code and of that of the steps."""
    library, steps = Path(promptgen.__file__).parent, Path(__file__).parents[1]
    digest = hashlib.sha256()
    for root in (library, steps):
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{root.name}/{path.relative_to(root).as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()
