"""Recipes of the workers of a pass: parsed parameters, weight files, and the files of earlier steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import filelock

from promptgen.config.build import identities
from promptgen.engine.base import R, Recipe, S
from promptgen.errors import ChecksumError, ModelFileError
from promptgen.model_files.store import fetch, resolve
from steps.shared.code import all_code_sha256
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
        """Fetch the weight files that are missing on this machine; refuse a file with another checksum."""
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
            "version of promptgen": all_code_sha256(),
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
