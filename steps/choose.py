"""Write a ready-made experiment into params.yaml, so that `dvc repro` and all other commands are about it."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("experiments", "choose")

import subprocess
from pathlib import Path
from typing import Any

import yaml

from promptgen.errors import StorageError
from promptgen.experiments.presets import FOLDER_NAME, Preset, find_preset, read_presets
from promptgen.files import atomic_write, storage_error

PARAMS_NAME = "params.yaml"


def run(name: str, root: Path) -> Path | None:
    """Write the experiment called `name` into the params.yaml of the project in `root`.

    A params.yaml that is nowhere else, neither committed nor written by this command, is kept under another name.

    Returns:
        Where the former params.yaml was kept; None if that was not needed.

    Raises:
        ConfigError: there is no such experiment, or one of its keys is wrong.
        StorageError: the file cannot be written.
    """
    folder, path = root / FOLDER_NAME, root / PARAMS_NAME
    text = params_text(find_preset(name, folder))
    kept = None
    if path.exists() and not is_committed(path) and not is_written_here(path, folder):
        kept = _set_aside(path)
    atomic_write(path, text)
    return kept


def params_text(preset: Preset) -> str:
    """Return the content of a params.yaml of a ready-made experiment."""
    head = (
        f"# {preset.name}: {preset.about}\n"
        f"# From {FOLDER_NAME}/{preset.origin.name}, by `promptgen experiments choose {preset.name}`.\n"
        "# Every key is explained in docs/configure.md; an unknown one is an error.\n"
    )
    return head + yaml.dump(preset.content(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)


def is_committed(path: Path) -> bool:
    """Tell whether git has the file as it is; no if there is no git here, or it does not know the file."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments, "--", path.name], cwd=path.parent, capture_output=True, text=True)

    try:
        if git("ls-files", "--error-unmatch").returncode != 0:
            return False
        status = git("status", "--porcelain")
    except OSError:
        return False
    return status.returncode == 0 and not status.stdout.strip()


def is_written_here(path: Path, folder: Path) -> bool:
    """Tell whether the file is exactly what this command writes for one of the experiments of `folder`."""
    text = path.read_text()
    presets = read_presets(folder)
    name = text.removeprefix("# ").partition(":")[0]
    return name in presets and params_text(presets[name]) == text


def _set_aside(path: Path) -> Path:
    """Give the file another name, one that nothing has."""
    names = (path.with_name(f"{path.name}.bak{number or ''}") for number in range(1000))
    free = next((name for name in names if not name.exists()), None)
    if free is None:
        raise StorageError(f"{path} was kept a thousand times: remove some of {path.name}.bak*")
    try:
        path.rename(free)
    except OSError as error:
        raise storage_error(free, error) from error
    return free


class _Plain(yaml.SafeDumper):
    """Writes the same part twice where it is there twice, instead of an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
