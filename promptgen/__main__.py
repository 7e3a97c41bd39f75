"""Command line of the library: `python -m promptgen doctor`."""

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
    return doctor.main(parser.parse_args(arguments).root)


if __name__ == "__main__":
    sys.exit(main())
