"""The commands of the pipelines. Arguments are read first; what a command needs is imported afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from promptgen.command import Parser, whole_number
from steps.commands import add_experiment


def run(words: Sequence[str]) -> None:
    """Run `promptgen run`."""
    parser = Parser(
        "run",
        "Run the loop of an experiment, or what is left of it: control the generator, measure the bias that this\n"
        "brings, train against it, until it is gone. An interrupted run continues where it was.",
        "promptgen run\npromptgen run --experiment text-baby",
    )
    add_experiment(parser)
    options = parser.parse_args(words)
    from pipelines import run

    run.run(options.params, options.experiment)


def ui(words: Sequence[str]) -> None:
    """Run `promptgen ui`."""
    parser = Parser("ui", "Start the pages of MLflow and Prefect on this machine, until Ctrl-C.", "promptgen ui")
    _add_params(parser)
    _add_port(parser, "MLflow", 5000)
    _add_port(parser, "Prefect", 4200)
    options = parser.parse_args(words)
    from pipelines import ui

    ui.run(options.params, options.mlflow_port, options.prefect_port)


def serve(words: Sequence[str]) -> None:
    """Run `promptgen serve`."""
    parser = Parser("serve", "Run the experiment whenever the schedule of params.yaml says so, until Ctrl-C.")
    _add_params(parser)
    _add_port(parser, "Prefect", 4200)
    options = parser.parse_args(words)
    from pipelines import serve

    serve.run(options.params, options.prefect_port)


def _add_params(parser: Parser) -> None:
    parser.add_argument(
        "--params", default="params.yaml", metavar="FILE", help="file of the experiment (default: params.yaml)"
    )


def _add_port(parser: Parser, server: str, port: int) -> None:
    parser.add_argument(
        f"--{server.lower()}-port",
        type=whole_number(1, 65535),
        default=port,
        metavar="PORT",
        help=f"port of {server} (default: {port})",
    )
