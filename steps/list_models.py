"""Hold the `models` of params.yaml, which is what gets fetched, against what the experiment uses; before any fetch."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from promptgen.config.build import cards_of
from promptgen.config.params import Params, load_params
from promptgen.errors import ConfigError
from promptgen.files import write_json
from promptgen.model_files.cards import find_card
from steps.shared.command import command

logger = logging.getLogger("promptgen")

LIST_NAME = "used.json"


def used(params: Params) -> set[str]:
    """Return the names of the cards whose files an experiment needs."""
    return {name for spec in params.specs for name in cards_of(spec)}


def lacking(params: Params) -> str | None:
    """Return a sentence on the models that are used but not listed, if there are any."""
    names = ", ".join(sorted(used(params) - set(params.models)))
    return f"models: lacks {names}, which the experiment uses; add it, or it is not fetched" if names else None


def idle(params: Params) -> str | None:
    """Return a sentence on the models that are listed but not used, if there are any."""
    names = ", ".join(sorted(set(params.models) - used(params)))
    return f"models: has {names}, which the experiment does not use; without it, less is fetched" if names else None


def run(params: Params, models: Path) -> None:
    """Write the licence of every model that the experiment uses into the folder `models`.

    Raises:
        ConfigError: a used model is not listed, or there is no such card.
        StorageError: the file cannot be written.
    """
    if fault := lacking(params):
        raise ConfigError(fault)
    if fault := idle(params):
        logger.warning("%s", fault)
    write_json(models / LIST_NAME, {name: find_card(name, models).licence for name in used(params)})


def main() -> None:
    """Run the step from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", default="params.yaml", type=Path, help="the experiment (default: params.yaml)")
    path = parser.parse_args().params
    run(load_params(path), path.parent / "models")


if __name__ == "__main__":
    command(main)
