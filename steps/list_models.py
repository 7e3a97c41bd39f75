"""Check that `models` in params.yaml lists what the experiment uses, before anything is fetched."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("list-models")

import logging
from pathlib import Path

from promptgen.config.params import Params
from promptgen.errors import ConfigError
from promptgen.files import write_json
from promptgen.model_files.cards import find_card

logger = logging.getLogger("promptgen")

LIST_NAME = "used.json"


def unlisted(params: Params) -> str | None:
    """Return a warning about models that the experiment uses but does not list, or None."""
    names = ", ".join(sorted(set(params.cards) - set(params.models)))
    return f"models: lacks {names}, which the experiment uses; add it, or it is not fetched" if names else None


def unused(params: Params) -> str | None:
    """Return a warning about models that the experiment lists but does not use, or None."""
    names = ", ".join(sorted(set(params.models) - set(params.cards)))
    return f"models: has {names}, which the experiment does not use; without it, less is fetched" if names else None


def run(params: Params, models: Path) -> None:
    """Write the licence of every model that the experiment uses into the folder `models`.

    Raises:
        ConfigError: a used model is not listed, or there is no such card.
        StorageError: the file cannot be written.
    """
    if error := unlisted(params):
        raise ConfigError(error)
    if warning := unused(params):
        logger.warning("%s", warning)
    write_json(models / LIST_NAME, {name: find_card(name, models).licence for name in params.cards})
