"""Addresses of MLflow's pages that compare runs: its first page folds the passes away and shows no metrics."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT_TAG = "mlflow.parentRunId"


def charts(experiment_id: str) -> str:
    """Return the page that draws the metrics of all runs of an MLflow experiment."""
    return f"/#/experiments/{experiment_id}/runs?compareRunsMode=CHART"


def compare(experiment_id: str, run_ids: list[str]) -> str:
    """Return the page that sets runs side by side."""
    runs, experiments = (quote(json.dumps(ids, separators=(",", ":"))) for ids in (run_ids, [experiment_id]))
    return f"/#/compare-runs?runs={runs}&experiments={experiments}"


def latest_loop(client: MlflowClient, tracking_experiment: str) -> tuple[str, list[str]] | None:
    """Return the ids of an MLflow experiment and of its newest loop's passes, in order; None before the first loop."""
    experiment = client.get_experiment_by_name(tracking_experiment)
    if experiment is None:
        return None
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    parents = [run.info.run_id for run in runs if PARENT_TAG not in run.data.tags]
    if not parents:
        return None
    return experiment.experiment_id, [run.info.run_id for run in runs if run.data.tags.get(PARENT_TAG) == parents[-1]]
