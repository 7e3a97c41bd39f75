"""Command line of the library: `python -m promptgen doctor`, `inspect FILE`, `cost MODEL`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from promptgen import doctor


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m promptgen", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("doctor", help="say what is wrong with this machine, and what to do")
    command.add_argument(
        "--root", type=Path, default=Path.cwd(), help="the project's folder (default: the present one)"
    )
    command = commands.add_parser("inspect", help="say what files are without running anything in them")
    command.add_argument("files", type=Path, nargs="+", metavar="FILE")
    command.add_argument("--json", action="store_true", help="print a JSON list instead of text")
    command = commands.add_parser("cost", help="measure what a model costs, with random weights: no file is needed")
    command.add_argument("model", help="name of its card")
    command.add_argument("--models", type=Path, default=Path("models"), help="folder of weight files (default: models)")
    command.add_argument("--batch", type=int, default=1, help="images at a time (default: 1)")
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, auto (default: cpu)")
    given = parser.parse_args(arguments)
    if given.command == "inspect":
        from promptgen.loading.inspection import report  # the doctor has to work where packages are missing

        return report.main(given.files, given.json)
    if given.command == "cost":
        from promptgen.experiments import costs

        return costs.main(given.model, given.models, given.batch, given.device)
    return doctor.main(given.root)


if __name__ == "__main__":
    sys.exit(main())
