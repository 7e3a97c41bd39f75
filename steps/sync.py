"""Send MLflow what it has missed, after its server was away or its database was deleted."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("sync")

import sys
from pathlib import Path

from promptgen.errors import PromptGenError
from steps.recording.journal import JOURNAL_NAME
from steps.recording.mlflow_store import ROOT
from steps.recording.replay import push


def run(root: Path = ROOT) -> int:
    """Replay every journal of the project in `root`, print what was sent, and return the exit status."""
    root, status = root.resolve(), 0
    for path in sorted(root.glob(f"artifacts/*/tracking/*/{JOURNAL_NAME}")):
        folder = path.parent
        try:
            print(f"{folder.parents[1].name}/{folder.name}: {push(folder, root)} events sent")
        except PromptGenError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 2
    return status
