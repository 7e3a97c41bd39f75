"""Folders of a project with and without an MLflow database."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def bare_root(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def root(bare_root, empty_database):
    (bare_root / "mlruns").mkdir()
    shutil.copy(empty_database, bare_root / "mlruns" / "mlflow.db")
    return bare_root
