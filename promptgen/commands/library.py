"""The commands that the library has by itself. Arguments are read first; what they need is imported afterwards."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from promptgen.commands.command import Parser, whole_number


def doctor(arguments: Sequence[str]) -> int:
    """Run `promptgen doctor`."""
    parser = Parser(
        "doctor", "Check this machine and the installation, and say how to fix what is wrong. Change nothing."
    )
    parser.add_argument(
        "--root", type=Path, default=Path.cwd(), metavar="DIR", help="the project's folder (default: the current one)"
    )
    options = parser.parse_args(arguments)
    from promptgen.commands import doctor

    return doctor.main(options.root)


def inspect(arguments: Sequence[str]) -> int:
    """Run `promptgen inspect`."""
    parser = Parser(
        "inspect",
        "Show what weight files contain and which cards they match, without running anything in them.\n"
        "Exit status: 0 if all are safe to load, 1 if any is not, 2 if any cannot be read.",
        "promptgen inspect gift.pt",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of text")
    options = parser.parse_args(arguments)
    from promptgen.loading.inspection import report

    return report.main(options.files, options.json)


def store(arguments: Sequence[str]) -> None:
    """Run `promptgen store`."""
    parser = Parser(
        "store",
        "List the stores of evaluations: the generator, the number of images and gradients, and the models that have\n"
        "read them. A training with `method: reuse` makes no image that is in its store.",
        "promptgen store world-no-makeup",
    )
    parser.add_argument("experiment", metavar="EXPERIMENT", nargs="?", help="name of an experiment (default: all)")
    parser.add_argument(
        "--artifacts",
        type=Path,
        default=Path("artifacts"),
        metavar="DIR",
        help="folder of the results (default: artifacts)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of text")
    options = parser.parse_args(arguments)
    from promptgen.evaluations.inventory import find_stores, inventory_json, inventory_text

    contents = find_stores(options.artifacts, options.experiment)
    if options.json:
        print(inventory_json(contents))
    else:
        print(inventory_text(contents) or f"no evaluations are kept in {options.artifacts}")


def cost(arguments: Sequence[str]) -> int:
    """Run `promptgen cost`."""
    parser = Parser(
        "cost",
        "Measure the size, arithmetic, memory and time of a model. It gets random weights, so no file is needed.",
        "promptgen cost stylegan2-ffhq-1024 --device cuda --batch 8",
    )
    parser.add_argument("model", metavar="MODEL", help="name of the model's card")
    add_models(parser)
    parser.add_argument("--batch", type=whole_number(1), default=1, metavar="N", help="images at a time (default: 1)")
    add_device(parser)
    options = parser.parse_args(arguments)
    from promptgen.experiments import costs

    return costs.main(options.model, options.models, options.batch, options.device)


def add_params(parser: argparse._ActionsContainer) -> None:
    """Add `--params FILE`."""
    parser.add_argument(
        "--params", default="params.yaml", metavar="FILE", help="file of the experiment (default: params.yaml)"
    )


def add_models(parser: Parser) -> None:
    """Add `--models DIR`."""
    parser.add_argument(
        "--models", type=Path, default=Path("models"), metavar="DIR", help="folder of weight files (default: models)"
    )


def add_device(parser: Parser) -> None:
    """Add `--device NAME`."""
    parser.add_argument(
        "--device", default="cpu", metavar="NAME", help="where networks run: cpu, cuda, cuda:1, auto (default: cpu)"
    )
