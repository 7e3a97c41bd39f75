"""The pages of MLflow and Prefect, on this machine: `make ui`, or `promptgen ui`."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("ui")

import threading
from contextlib import ExitStack

from pipelines.servers import Server, end_on_sigterm, mlflow_server, prefect_server
from steps.recording import links
from steps.recording.mlflow_store import connect, tracking_uri
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


def run(params_path: str, mlflow_port: int, prefect_port: int) -> None:
    """Start both servers, say where to look, and wait for Ctrl-C."""
    project = Project.load(params_path)
    prefect, mlflow = prefect_server(prefect_port), mlflow_server(mlflow_port, project.root)
    uri = tracking_uri(project.root)
    end_on_sigterm()
    with ExitStack() as stack:
        for server in needed(prefect, mlflow, uri):
            print(f"starting {server.name} ...", flush=True)
            connect(project.root)  # makes the database whole, where MLflow's server would make it table by table
            stack.enter_context(server.running())
        base = uri if uri.startswith("http") else mlflow.url
        lines = [f"Prefect              {prefect.url}", f"MLflow               {base}", *comparison(project, base)]
        print("\n".join([*lines, "Ctrl-C stops them"]), flush=True)
        threading.Event().wait()
