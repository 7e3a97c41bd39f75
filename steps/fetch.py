"""Download the weight files of models into models/, and verify them by their cards or by models.lock."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from promptgen.commands.command import Parser, run_command
from promptgen.errors import ModelFileError, PromptGenError
from promptgen.loading.inspection.soundness import require_sound
from promptgen.model_files import store


def run(name: str, models: Path, source: Path | None = None) -> list[Path]:
    """Fetch the files of one model; return at once if they are there and intact.

    Args:
        name: name of its card.
        models: folder of the weight files.
        source: file or folder on this machine to copy them from; None fetches from the addresses of the card.

    Raises:
        ConfigError: there is no such card.
        ModelFileError: no URL has the file, or its content is damaged or not what the card says.
        StorageError: the file cannot be written.
    """
    if source is None:
        return store.fetch(name, models, examine=require_sound)
    return store.adopt(name, models, source, require_sound)


def run_all(names: list[str], models: Path, source: Path | None = None) -> None:
    """Fetch several models and print the paths of their files; a failure does not stop the others.

    Raises:
        ModelFileError: some of several failed, each with a line on stderr.
        PromptGenError: the only one failed.
    """
    failed = []
    for name in names:
        try:
            print(*run(name, models, source), sep="\n")
        except PromptGenError as error:
            if len(names) == 1:
                raise
            print(f"error: {error}", file=sys.stderr)
            failed.append(name)
    if failed:
        raise ModelFileError(f"{len(failed)} of {len(names)} models were not fetched: {', '.join(failed)}; see above")


def main(arguments: Sequence[str]) -> None:
    """Run `promptgen fetch`."""
    parser = Parser(
        "fetch",
        "Download the weight files of models and verify their checksums.",
        "promptgen fetch stylegan2-ffhq-1024 clip-vit-b-32",
    )
    parser.add_argument("names", nargs="+", metavar="MODEL", help="name of a model's card")
    parser.add_argument("--models", default="models", type=Path, help="folder of the weight files (default: models)")
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="PATH",
        help="copy the file, or the folder of files, from PATH instead",
    )
    options = parser.parse_args(arguments)
    if options.source and len(options.names) > 1:
        parser.error(f"--from is for one model, got {len(options.names)}: fetch each by itself")
    run_all(options.names, options.models, options.source)


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
