"""A registered sampler as a server: `promptgen serve-model`."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("serve-model")

import os
import sys
import threading
from pathlib import Path

from pipelines.servers import HOST, Server, end_on_sigterm
from promptgen.errors import ConfigError
from steps.recording.journal import ALIAS
from steps.recording.mlflow_store import connect, tracking_uri
from steps.shared.common import Project

EXAMPLE = """curl {url}/invocations -H 'Content-Type: application/json' -d '{{"inputs": [{{"seed": 1}}]}}'"""


def model_server(model: str, port: int, workers: int, root: Path) -> Server:
    """Return MLflow's server of a model.

    Args:
        model: address of the model, such as ``models:/world-no-makeup@least-biased``.
        port: on the loopback address.
        workers: number of processes, each with its own copy of the model.
        root: folder of the project, whose MLflow database contains the model.
    """
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", model, "--env-manager", "local"]
    command += ["--host", HOST, "--port", str(port), "--workers", str(workers)]
    environment = {
        # MLflow starts its web server by name.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "MLFLOW_TRACKING_URI": tracking_uri(root),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONWARNINGS": "ignore",
    }
    return Server("model", port, command, "/health", environment)


def run(params_path: str, model: str | None, port: int, workers: int) -> None:
    """Serve a model until Ctrl-C.

    Raises:
        ConfigError: no model is named, neither here nor in the parameters.
        PromptGenError: the port is in use, or the server does not start.
    """
    project = Project.load(params_path)
    if model is None:
        name = project.params.tracking.registered_model
        if name is None:
            raise ConfigError("tracking.registered_model is null, so there is no model to serve: name one with --model")
        model = f"models:/{name}@{ALIAS}"
    connect(project.root)
    end_on_sigterm()
    server = model_server(model, port, workers, project.root)
    print(f"starting {model} ...", flush=True)
    with server.running():
        print(
            f"{model} answers at {server.url}/invocations\n  {EXAMPLE.format(url=server.url)}\nCtrl-C stops it",
            flush=True,
        )
        threading.Event().wait()
