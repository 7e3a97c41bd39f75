"""Hold the `models` of params.yaml, which is what gets fetched, against what the experiment uses; before any fetch."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("list-models")

import logging
from pathlib import Path

from promptgen.config.build import cards_of
from promptgen.config.params import Params
from promptgen.errors import ConfigError
from promptgen.files import write_json
from promptgen.model_files.cards import find_card

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
