"""Trained chains in MLflow's model registry: one version per pass, loadable anywhere, with nothing pickled."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import promptgen
from promptgen.model_files.cards import CARDS_NAME
from promptgen.model_files.pins import PINS_NAME

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

FOLDER = "model"
PROJECT_NAME = "project"
MODELS_NAME = "models"
MODEL_CODE = Path(__file__).with_name("sampler_model.py")
REQUIREMENTS = ("torch", "numpy", "scipy", "nflows", "pillow", "pydantic", "pyyaml", "safetensors", "filelock")


def register(
    client: MlflowClient,
    run_id: str,
    name: str,
    checkpoint: Path,
    weights: Sequence[Path],
    tags: Mapping[str, str],
    root: Path,
) -> str:
    """Log a checkpoint as a model of the run and register it under `name`; return the version, old or new.

    Args:
        client: client of MLflow.
        run_id: the run that trained the checkpoint.
        name: name of the registered model, created if it is new.
        checkpoint: a chain written by `promptgen.flows.chain_file.save_chain`.
        weights: the weight files that the checkpoint's generator is built from.
        tags: tags of the version; a version of the same run with the same tags counts as this one.
        root: folder of the project, which may contain the user's cards and pins of fetched files.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="Samplers that `make repro` trained, one version per pass")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for earlier in _versions(client, run_id, name):
        if tags.items() <= earlier.tags.items():
            return str(earlier.version)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        save(model, checkpoint, weights, root)
        client.log_artifacts(run_id, str(model), FOLDER)
    return str(client.create_model_version(name, f"runs:/{run_id}/{FOLDER}", run_id, dict(tags)).version)


def set_alias(client: MlflowClient, run_id: str, name: str, alias: str) -> None:
    """Give an alias to the newest version of a registered model that a run has, if it has one."""
    versions = _versions(client, run_id, name)
    if versions:
        client.set_registered_model_alias(name, alias, max(versions, key=lambda version: int(version.version)).version)


def _versions(client: MlflowClient, run_id: str, name: str) -> list[ModelVersion]:
    """Return a run's versions of a registered model; MLflow's filters cannot name a model with a quote."""
    return [version for version in client.search_model_versions(f"run_id = '{run_id}'") if version.name == name]


def save(folder: Path, checkpoint: Path, weights: Sequence[Path], root: Path) -> None:
    """Write an MLflow model that contains everything except installed packages; arguments as for `register`."""
    from mlflow import pyfunc

    with tempfile.TemporaryDirectory() as scratch:
        library = Path(scratch) / "code" / "promptgen"
        project = Path(scratch) / PROJECT_NAME
        (project / MODELS_NAME).mkdir(parents=True)
        for path in weights:
            target = project / MODELS_NAME / path.parent.name / path.name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
        for path in (root / CARDS_NAME, root / PINS_NAME):
            if path.is_file():
                shutil.copyfile(path, project / path.name)
        shutil.copytree(
            Path(promptgen.__file__).parent, library, ignore=shutil.ignore_patterns("__pycache__", "weights")
        )
        pyfunc.save_model(
            folder,
            python_model=str(MODEL_CODE),
            artifacts={"checkpoint": str(checkpoint), PROJECT_NAME: str(project)},
            code_paths=[str(library)],
            pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
        )
