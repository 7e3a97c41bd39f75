"""The command `promptgen experiments`: list the ready-made experiments, plan one, or write one into params.yaml."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from promptgen.command import Parser
from steps.commands import add_experiment, add_pass


def main(words: Sequence[str]) -> None:
    """Run `promptgen experiments`."""
    parser = Parser(
        "experiments",
        "List the ready-made experiments, show what one would take, or write one into params.yaml.\n\n"
        "  list         one line per experiment\n"
        "  plan         the models, images and costs of an experiment; nothing is run\n"
        "  choose NAME  write the experiment into params.yaml; a params.yaml of your own is kept under another name",
        "promptgen experiments plan --experiment text-baby",
    )
    parser.add_argument("action", choices=ACTIONS, metavar="list|plan|choose")
    action = parser.parse_args(words[:1]).action
    ACTIONS[action](words[1:])


def _list(words: Sequence[str]) -> None:
    Parser("experiments list", "List the ready-made experiments, one a line.").parse_args(words)
    from steps.plans import preset_lines

    print(preset_lines())


def _plan(words: Sequence[str]) -> None:
    parser = Parser(
        "experiments plan",
        "Show the models, images and costs of an experiment, or of one of its passes. Nothing is run.",
        "promptgen experiments plan --experiment text-baby",
    )
    add_experiment(parser)
    add_pass(parser, required=False)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args(words)
    from steps.plans import planned
    from steps.shared.common import Project

    project = Project.load(options.params, options.experiment)
    print(planned(project, options.experiment, options.number, as_json=options.json))


def _choose(words: Sequence[str]) -> None:
    parser = Parser(
        "experiments choose",
        "Write a ready-made experiment into params.yaml. A params.yaml of your own is kept under another name.",
        "promptgen experiments choose text-baby",
    )
    parser.add_argument("name", metavar="NAME", help="the experiment; `promptgen experiments list` lists all")
    name = parser.parse_args(words).name
    from steps import choose

    kept = choose.run(name, Path.cwd())
    if kept is not None:
        print(f"the former {choose.PARAMS_NAME} is now {kept.name}")
    print(f"{choose.PARAMS_NAME} is now {name}; `promptgen experiments plan` shows its plan, `dvc repro` runs it")


ACTIONS: Mapping[str, Callable[[Sequence[str]], None]] = {"list": _list, "plan": _plan, "choose": _choose}
