"""The commands of the pipelines. Arguments are read first; what a command needs is imported afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from promptgen.commands.command import Parser, whole_number
from promptgen.commands.library import add_params
from steps.commands import add_experiment


def run(arguments: Sequence[str]) -> None:
    """Run `promptgen run`."""
    parser = Parser(
        "run",
        "Run the loop of an experiment: control the generator, measure the bias that this introduces, and train\n"
        "against it until it is gone. An interrupted run continues where it stopped.",
        "promptgen run\npromptgen run --experiment text-baby",
    )
    add_experiment(parser)
    options = parser.parse_args(arguments)
    from pipelines import run

    run.run(options.params, options.experiment)


def ui(arguments: Sequence[str]) -> None:
    """Run `promptgen ui`."""
    parser = Parser("ui", "Start the web pages of MLflow and Prefect on this machine, until Ctrl-C.", "promptgen ui")
    add_params(parser)
    _add_port(parser, "MLflow", 5000)
    _add_port(parser, "Prefect", 4200)
    options = parser.parse_args(arguments)
    from pipelines import ui

    ui.run(options.params, options.mlflow_port, options.prefect_port)


def serve(arguments: Sequence[str]) -> None:
    """Run `promptgen serve`."""
    parser = Parser("serve", "Run the experiment whenever the schedule of params.yaml says so, until Ctrl-C.")
    add_params(parser)
    _add_port(parser, "Prefect", 4200)
    options = parser.parse_args(arguments)
    from pipelines import serve

    serve.run(options.params, options.prefect_port)


def serve_model(arguments: Sequence[str]) -> None:
    """Run `promptgen serve-model`."""
    parser = Parser(
        "serve-model",
        "Serve images of a registered model over HTTP on this machine, until Ctrl-C. The default is the least biased\n"
        "version of the model that tracking.registered_model names.",
        "promptgen serve-model\npromptgen serve-model --model models:/world-no-makeup/3 --port 8000",
    )
    add_params(parser)
    parser.add_argument("--model", metavar="ADDRESS", help="address of a model in MLflow, or its folder")
    parser.add_argument(
        "--port", type=whole_number(1, 65535), default=5001, metavar="PORT", help="port of the server (default: 5001)"
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1, 256),
        default=1,
        metavar="N",
        help="processes, each with its own copy of the model (default: 1)",
    )
    options = parser.parse_args(arguments)
    from pipelines import serve_model

    serve_model.run(options.params, options.model, options.port, options.workers)


def _add_port(parser: Parser, server: str, port: int) -> None:
    parser.add_argument(
        f"--{server.lower()}-port",
        type=whole_number(1, 65535),
        default=port,
        metavar="PORT",
        help=f"port of {server} (default: {port})",
    )
