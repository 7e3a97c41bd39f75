"""The pages of MLflow and Prefect, on this machine: `make ui`, or `promptgen ui`."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("ui")

import json
import threading
from contextlib import ExitStack
from urllib.parse import quote

from pipelines.servers import Server, end_on_sigterm, mlflow_server, prefect_server
from steps.recording.mlflow_store import connect, tracking_uri
from steps.recording.replay import PARENT_TAG
from steps.shared.common import Project


def comparison(project: Project, base: str) -> list[str]:
    """Return lines with MLflow's pages that compare the passes: its first page hides them and shows no metrics."""
    client = connect(project.root)
    experiment = client.get_experiment_by_name(project.params.tracking.experiment)
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]) if experiment else []
    parents = [run.info.run_id for run in runs if PARENT_TAG not in run.data.tags]
    if not parents:
        return ["no run has been recorded yet: `make repro` records one"]
    passes = [run.info.run_id for run in runs if run.data.tags.get(PARENT_TAG) == parents[-1]]
    ids, experiments = (quote(json.dumps(x, separators=(",", ":"))) for x in (passes, [experiment.experiment_id]))
    return [
        f"all runs as charts   {base}/#/experiments/{experiment.experiment_id}/runs?compareRunsMode=CHART",
        f"the newest passes    {base}/#/compare-runs?runs={ids}&experiments={experiments}",
    ]


def needed(prefect: Server, mlflow: Server, uri: str) -> list[Server]:
    """Return the servers to start: Prefect unless `make serve` runs it, and MLflow unless another server is configured.

    Raises:
        PromptGenError: the port of one of them is in use.
    """
    servers = [] if prefect.answers() else [prefect]
    servers += [] if uri.startswith("http") else [mlflow]
    for server in servers:
        server.require_port()
    return servers


def run(params_path: str, mlflow_port: int, prefect_port: int) -> None:
    """Start both servers, say where to look, and wait for Ctrl-C."""
    project = Project.load(params_path)
    prefect, mlflow = prefect_server(prefect_port), mlflow_server(mlflow_port, project.root)
    uri = tracking_uri(project.root)
    end_on_sigterm()
    with ExitStack() as stack:
        for server in needed(prefect, mlflow, uri):
            print(f"starting {server.name} ...", flush=True)
            connect(project.root)  # creates the database atomically; MLflow's server would create it table by table
            stack.enter_context(server.running())
        base = uri if uri.startswith("http") else mlflow.url
        lines = [f"Prefect              {prefect.url}", f"MLflow               {base}", *comparison(project, base)]
        print("\n".join([*lines, "Ctrl-C stops them"]), flush=True)
        threading.Event().wait()
