"""Folders of a project with and without an MLflow database."""

from __future__ import annotations

import shutil

import pytest

from steps.recording.mlflow_store import make_database


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """Return an empty MLflow database to copy: making one takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    make_database(path)
    return path


@pytest.fixture
def bare_root(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def root(bare_root, empty_database):
    (bare_root / "mlruns").mkdir()
    shutil.copy(empty_database, bare_root / "mlruns" / "mlflow.db")
    return bare_root
