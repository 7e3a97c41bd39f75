"""What the command lines say about experiments before anything is run: which there are, and what one would take."""

from __future__ import annotations

import json
from pathlib import Path

from promptgen.experiments.plan import plan_of
from promptgen.experiments.plan_text import plan_text
from promptgen.experiments.presets import FOLDER_NAME, find_preset, read_presets
from steps.shared.common import Project


def preset_lines() -> str:
    """Return a line per ready-made experiment of the current folder: its name, two spaces or more, what it is.

    Raises:
        ConfigError: there are none, or a file is not one of experiments.
    """
    presets = read_presets(Path(FOLDER_NAME))
    width = max(map(len, presets))
    return "\n".join(f"{preset.name:{width}}  {preset.about}" for preset in presets.values())


def planned(project: Project, experiment: str | None, number: int | None, *, as_json: bool) -> str:
    """Return the plan of an experiment, or of one of its passes, as text or as JSON.

    Args:
        project: the experiment.
        experiment: its name, if it is a ready-made one.
        number: the pass; None means all.
        as_json: whether a program is to read it.

    Raises:
        ConfigError: there is no such pass, or a card is missing.
    """
    about = find_preset(experiment, Path(FOLDER_NAME)).about if experiment else ""
    plan = plan_of(project.params, project.models, about, number)
    return json.dumps(plan.as_dict(), indent=2) if as_json else plan_text(plan)
