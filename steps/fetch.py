"""Fetch a model's weight file into models/ and compare its sha256 with the card's."""

from __future__ import annotations

import argparse
from pathlib import Path

from promptgen import store
from steps.command import command


def run(name: str, models: Path) -> list[Path]:
    """Fetch the files of one model; returns at once when they are there and sound.

    Args:
        name: name of its card.
        models: folder of the weight files.

    Raises:
        ConfigError: there is no such card.
        ModelFileError: no URL gave the file, or what it gave is not what the card says.
        StorageError: the file cannot be written.
    """
    return store.fetch(name, models)


def main() -> None:
    """Run the step from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", metavar="MODEL", help="name of a model's card")
    parser.add_argument("--models", default="models", type=Path, help="folder of the weight files (default: models)")
    arguments = parser.parse_args()
    for name in arguments.names:
        print(*run(name, arguments.models), sep="\n")


if __name__ == "__main__":
    command(main)
