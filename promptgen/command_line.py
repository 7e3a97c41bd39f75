"""The command line `promptgen COMMAND`, also as `python -m promptgen COMMAND`: the table of all commands.

A command is named by the function that reads its arguments and does its work; its module is imported when it is called.
The library stands on its own: the commands of the experiments are in `steps` and `pipelines`, which need not be there.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NoReturn

from promptgen import __version__
from promptgen.commands.command import WRONG, run_command
from promptgen.errors import PromptGenError


class Command(NamedTuple):
    """A command.

    Attributes:
        work: ``module:function``; the function takes the arguments and returns an exit status, or None for 0.
        about: what it does, in one line.
    """

    work: str
    about: str


GROUPS: Mapping[str, Mapping[str, Command]] = {
    "Run an experiment": {
        "experiments": Command("steps.experiments:main", "list the ready-made experiments, plan one or choose one"),
        "check": Command("steps.commands:check", "find mistakes in an experiment before it runs"),
        "run": Command("pipelines.commands:run", "run the loop of an experiment, or continue it"),
        "step": Command("steps.commands:step", "run one step of one pass"),
        "report": Command("steps.commands:report", "write the report of the last run"),
    },
    "Use models and results": {
        "draw": Command("steps.commands:draw", "draw images from a trained pass"),
        "audit": Command("steps.commands:audit", "measure the bias of any images, or of labels in a CSV file"),
        "fetch": Command("steps.fetch:main", "download the weight files of models"),
        "list-models": Command(
            "steps.commands:list_models", "compare the models listed in params.yaml with those used"
        ),
        "store": Command("promptgen.commands.library:store", "show the evaluations that the next training can reuse"),
        "inspect": Command("promptgen.commands.library:inspect", "show what weight files contain, without running it"),
        "cost": Command("promptgen.commands.library:cost", "measure how much memory and time a model needs"),
        "build-world": Command("steps.commands:build_world", "train the models of the embedded world from scratch"),
    },
    "Servers and this machine": {
        "ui": Command("pipelines.commands:ui", "start the web pages of MLflow and Prefect"),
        "serve": Command("pipelines.commands:serve", "run the experiment on its schedule"),
        "serve-model": Command("pipelines.commands:serve_model", "serve images of a registered model over HTTP"),
        "sync": Command("steps.commands:sync", "send MLflow the records that it has missed"),
        "doctor": Command("promptgen.commands.library:doctor", "check this machine, and say how to fix what is wrong"),
    },
}

COMMANDS: Mapping[str, Command] = {name: command for group in GROUPS.values() for name, command in group.items()}

EXAMPLES = """\
  promptgen run
  promptgen draw --pass 2 --n 64 --out images
  promptgen audit --images FOLDER --classifier fairface"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        arguments: name and arguments of the command; None takes those of the process.
    """
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or [""]
    if name in ("-h", "--help", "help"):
        return run_command(lambda _: print(page()), rest)
    if name == "--version":
        print(f"promptgen {__version__}")
        return 0
    if name not in COMMANDS:
        got = f"there is no command {name!r}" if name else "the command is missing"
        print(f"error: {got}, expected one of {', '.join(COMMANDS)}; see `promptgen --help`", file=sys.stderr)
        return WRONG
    return run_command(lambda arguments: load(name)(arguments), rest)


def run_as(*command: str) -> NoReturn:
    """Run a command with the arguments of the process, and end it; for ``python -m MODULE``."""
    sys.exit(main([*command, *sys.argv[1:]]))


def page() -> str:
    """Return the help of the command line: all commands in groups."""
    width = max(map(len, COMMANDS))
    groups = [
        f"{title}:\n" + "\n".join(f"  {name:<{width}}  {command.about}" for name, command in group.items())
        for title, group in GROUPS.items()
    ]
    return "\n\n".join(
        [
            "usage: promptgen COMMAND [ARGUMENTS]",
            "Control a frozen image generator, measure the bias that this introduces, and remove it.",
            *groups,
            f"Examples:\n{EXAMPLES}",
            "`promptgen COMMAND --help` explains a command.",
        ]
    )


def load(name: str) -> Callable[[Sequence[str]], int | None]:
    """Return the function of a command.

    Raises:
        PromptGenError: the command is not part of the library, and the library is installed alone.
    """
    module, _, function = COMMANDS[name].work.partition(":")
    try:
        work: Callable[[Sequence[str]], int | None] = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        raise PromptGenError(
            f"`promptgen {name}` needs the package {package}, but only the library is installed; "
            "install the whole project with `pip install -e FOLDER`, its clone"
        ) from error
    return work
