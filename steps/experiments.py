"""The command `promptgen experiments`: list the ready-made experiments, plan one, or write one into params.yaml."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from promptgen.commands.command import Parser
from promptgen.experiments.presets import FOLDER_NAME, Preset, find_preset, read_presets
from promptgen.files import atomic_write, storage_error
from steps.commands import add_pass

PARAMS_NAME = "params.yaml"


def listing(root: Path) -> str:
    """Return one line per ready-made experiment of a project: its name, at least two spaces, and what it does.

    Raises:
        ConfigError: the project has none, or a file does not hold experiments.
    """
    presets = read_presets(root / FOLDER_NAME)
    width = max(map(len, presets))
    return "\n".join(f"{preset.name:{width}}  {preset.about}" for preset in presets.values())


def plan(params_path: Path, name: str | None, number: int | None = None, *, as_json: bool = False) -> str:
    """Return the plan of an experiment, or of one of its passes.

    Args:
        params_path: params.yaml of the project.
        name: ready-made experiment of the current folder to plan instead; None plans params.yaml.
        number: the pass; None means all.
        as_json: return JSON instead of text.

    Raises:
        ConfigError: there is no such experiment, pass or card, or a key is wrong.
    """
    from promptgen.config.params import load_params
    from promptgen.experiments.plan import plan_of
    from promptgen.experiments.plan_text import plan_text

    preset = find_preset(name, Path(FOLDER_NAME)) if name else None
    params = preset.params() if preset else load_params(params_path)
    root = Path.cwd() if preset else params_path.resolve().parent
    planned = plan_of(params, root / "models", preset.about if preset else "", number)
    return json.dumps(planned.as_dict(), indent=2) if as_json else plan_text(planned)


def choose(name: str, root: Path) -> Path | None:
    """Write the experiment called `name` into the params.yaml of the project in `root`.

    A params.yaml that would be lost, neither committed nor written by this command, is kept under another name.

    Returns:
        Where the previous params.yaml was kept; None if that was not needed.

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
    """Return whether git has the file in its present state; False without git or outside a repository."""

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
    """Return whether the file is exactly what this command writes for one of the experiments of `folder`."""
    text = path.read_text()
    presets = read_presets(folder)
    name = text.removeprefix("# ").partition(":")[0]
    return name in presets and params_text(presets[name]) == text


def _set_aside(path: Path) -> Path:
    """Rename the file to a name that is free."""
    names = (path.with_name(f"{path.name}.bak{number or ''}") for number in count())
    free = next(name for name in names if not name.exists())
    try:
        path.rename(free)
    except OSError as error:
        raise storage_error(free, error) from error
    return free


class _Plain(yaml.SafeDumper):
    """Writes a part that appears twice twice, instead of as an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def main(arguments: Sequence[str]) -> None:
    """Run `promptgen experiments`."""
    parser = Parser(
        "experiments",
        "List the ready-made experiments, show what one would cost, or write one into params.yaml.\n\n"
        "  list         print one line per experiment\n"
        "  plan [NAME]  show the models, images and costs of an experiment; nothing is run\n"
        "  choose NAME  write the experiment into params.yaml; your own params.yaml is kept under another name",
        "promptgen experiments plan text-baby",
    )
    parser.add_argument("action", choices=ACTIONS, metavar="list|plan|choose")
    action = parser.parse_args(arguments[:1]).action
    ACTIONS[action](arguments[1:])


def _list(arguments: Sequence[str]) -> None:
    Parser("experiments list", "List the ready-made experiments, one per line.").parse_args(arguments)
    project = Path() if Path(FOLDER_NAME).is_dir() else Path(__file__).parents[1]  # else that of this code
    print(listing(project))


def _plan(arguments: Sequence[str]) -> None:
    parser = Parser(
        "experiments plan",
        "Show the models, images and costs of an experiment, or of one of its passes. Nothing is run.",
        "promptgen experiments plan text-baby",
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument("name", metavar="NAME", nargs="?", help="a ready-made experiment (default: that of --params)")
    either.add_argument("--params", default=PARAMS_NAME, metavar="FILE", help="its file (default: params.yaml)")
    add_pass(parser, required=False)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args(arguments)
    print(plan(Path(options.params), options.name, options.number, as_json=options.json))


def _choose(arguments: Sequence[str]) -> None:
    parser = Parser(
        "experiments choose",
        "Write a ready-made experiment into params.yaml. Your own params.yaml is kept under another name.",
        "promptgen experiments choose text-baby",
    )
    parser.add_argument("name", metavar="NAME", help="the experiment; `promptgen experiments list` lists all")
    name = parser.parse_args(arguments).name
    kept = choose(name, Path.cwd())
    if kept is not None:
        print(f"the previous {PARAMS_NAME} is now {kept.name}")
    print(f"{PARAMS_NAME} is now {name}; `promptgen experiments plan` shows its plan, `dvc repro` runs it")


ACTIONS: Mapping[str, Callable[[Sequence[str]], None]] = {"list": _list, "plan": _plan, "choose": _choose}
