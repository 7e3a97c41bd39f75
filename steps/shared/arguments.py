"""Arguments that several commands take: which experiment, and which of its passes."""

from __future__ import annotations

import argparse

from promptgen.experiments.presets import FOLDER_NAME


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """Give a command `--params FILE` and `--experiment NAME`, of which one at the most is to be used."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--params", default="params.yaml", help="the experiment (default: params.yaml)")
    either.add_argument("--experiment", metavar="NAME", help=f"the ready-made one of this name in {FOLDER_NAME}/")


def add_pass(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Give a command `--pass NUMBER`, which becomes `number`."""
    parser.add_argument("--pass", dest="number", type=int, required=required, help="number of the pass, from 0")
