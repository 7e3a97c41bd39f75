"""The pages of MLflow and Prefect, on this machine: `make ui`, or `python -m pipelines.ui`."""

from __future__ import annotations

import argparse
import threading
from contextlib import ExitStack

from pipelines.servers import Server, end_on_sigterm, mlflow_server, prefect_server
from steps.recording import links
from steps.recording.mlflow_store import connect, tracking_uri
from steps.shared.command import command
from steps.shared.common import Project


def comparison(project: Project, base: str) -> list[str]:
    """Return the lines that say where the passes of the newest loop can be compared."""
    latest = links.latest_loop(connect(project.root), project.params.tracking.experiment)
    if latest is None:
        return ["no run is recorded yet: `make repro` records one"]
    experiment, passes = latest
    return [
        f"all runs as charts   {base}{links.charts(experiment)}",
        f"the newest passes    {base}{links.compare(experiment, passes)}",
    ]


def needed(prefect: Server, mlflow: Server, uri: str) -> list[Server]:
    """Return the servers to start: not a Prefect that `make serve` runs already, nor MLflow where another is in use.

    Raises:
        PromptGenError: the port of one of them is in use.
    """
    servers = [] if prefect.answers() else [prefect]
    servers += [] if uri.startswith("http") else [mlflow]
    for server in servers:
        server.require_port()
    return servers


def main() -> None:
    """Start both servers, say where to look, and wait for Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", default="params.yaml", help="the experiment (default: params.yaml)")
    parser.add_argument("--mlflow-port", type=int, default=5000)
    parser.add_argument("--prefect-port", type=int, default=4200)
    given = parser.parse_args()
    project = Project.load(given.params)
    prefect, mlflow = prefect_server(given.prefect_port), mlflow_server(given.mlflow_port, project.root)
    uri = tracking_uri(project.root)
    end_on_sigterm()
    with ExitStack() as stack:
        for server in needed(prefect, mlflow, uri):
            print(f"starting {server.name} ...", flush=True)
            connect(project.root)  # makes the database whole, where MLflow's server would make it table by table
            stack.enter_context(server.running())
        base = uri if uri.startswith("http") else mlflow.url
        lines = [f"Prefect              {prefect.url}", f"MLflow               {base}", *comparison(project, base)]
        print("\n".join([*lines, "Ctrl-C ends them"]), flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    command(main)
