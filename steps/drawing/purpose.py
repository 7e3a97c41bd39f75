"""Whether the flow of a pass was trained for the energy of the present params.yaml, by the manifest of its training.

How it was trained (steps, size, seed) does not matter here, nor does the version of this project's code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from promptgen.config.debias import Debias
from promptgen.config.params import Control
from promptgen.errors import ConfigError
from promptgen.strict import validate
from steps.shared.common import MOMENTS_NAME, Pass
from steps.shared.manifest import StepFolder
from steps.training.plan import plan_of

NAMED = 4
"""Most differences that an error names."""

PURPOSE = {
    "control": ("energies", "condition"),
    "debias": ("attribute", "target", "classifier", "features", "weight", "dual"),
}
"""The parameters that define what a flow is trained for, by the kind of its pass."""


def check_purpose(run_pass: Pass) -> list[str]:
    """Return reasons to doubt that a pass was trained for the present params.yaml; usually there are none.

    Parameters and weight files must be the same. Code of the user's own modules and cards of models may have changed
    without changing the energy, so a change of these is a doubt and no error.

    Raises:
        ConfigError: it was trained for something else; the message names the differences.
        DataError: the flow has not been trained yet.
    """
    made_from = StepFolder(run_pass.folder("train_flow"), "").manifest().get("made_from")
    if not made_from:
        return [_unknown(run_pass, "an earlier version did not record it")]
    try:
        different = list(_different_params(run_pass, made_from["params"]))
    except ConfigError as error:  # recorded by an earlier version, with other parameters
        return [_unknown(run_pass, str(error))]
    _refuse(run_pass, different)
    moments_are_final = run_pass.params.debias.dual is None  # or else the multipliers that it reached are recorded
    changed = [
        name for name, sha256 in plan_of(run_pass).inputs.items() if made_from["inputs"].get(name, sha256) != sha256
    ]
    _refuse(
        run_pass,
        [
            f"{name} is now another file"
            for name in changed
            if not _is_code(name) and (name != MOMENTS_NAME or moments_are_final)
        ],
    )
    return [
        f"{name} has changed since pass {run_pass.number} was trained: if that changes the energy, train the pass again"
        for name in changed
        if _is_code(name)
    ]


def _unknown(run_pass: Pass, why: str) -> str:
    return f"what pass {run_pass.number} was trained for is unknown ({why}): if params.yaml has changed, train it again"


def _refuse(run_pass: Pass, different: Sequence[str]) -> None:
    if different:
        more = [f"{len(different) - NAMED} more"] if len(different) > NAMED else []
        steps = ("train_flow",) if run_pass.kind == "control" else ("fit_moments", "train_flow")
        raise ConfigError(
            f"pass {run_pass.number} was not trained for the present params.yaml: "
            f"{', '.join([*different[:NAMED], *more])}; restore them, or train the pass again with "
            + " and ".join(f"`promptgen step {step} --pass {run_pass.number}`" for step in steps)
        )


def _different_params(run_pass: Pass, recorded: Mapping[str, Any]) -> Iterator[str]:
    """Yield a text on each parameter in `PURPOSE` that differs from the recorded one."""
    kind = "control" if "energies" in recorded else "debias"
    if kind != run_pass.kind:
        yield f"it was a {kind} pass, and is a {run_pass.kind} pass now"
        return
    section: Control | Debias = getattr(run_pass.params, kind)
    # Validated by the present models, so that a new parameter at its default is no difference. A control without a
    # condition was recorded as an empty one.
    values = {name: recorded[name] or None for name in PURPOSE[kind] if name in recorded}
    then = validate(type(section), {**section.model_dump(mode="json"), **values})
    yield from _differences(kind, _purpose(then), _purpose(section))


def _purpose(section: Control | Debias) -> dict[str, Any]:
    """Return the parameters that define what a flow is trained for."""
    if isinstance(section, Control):
        values = section.model_dump(mode="json", include=set(PURPOSE["control"]))
        return {**values, "condition": section.box.names}  # the ranges only say where it was trained
    values = section.model_dump(mode="json", include=set(PURPOSE["debias"]))
    return {**values, "dual": None if section.dual is None else "set"}  # the multipliers that it reached are recorded


def _differences(path: str, then: Any, now: Any) -> Iterator[str]:
    """Yield what differs between two values, with the dotted path of each difference."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in sorted(then.keys() | now.keys()):
            if name in then and name in now:
                yield from _differences(f"{path}.{name}", then[name], now[name])
            else:
                yield f"{path}.{name} is {'new' if name in now else 'gone'}"
    elif then != now:
        was, is_now = (json.dumps(value, ensure_ascii=False) for value in (then, now))
        yield f"{path} was {was} and is {is_now}"


def _is_code(name: str) -> bool:
    """Return whether an input is a dotted path, or the arguments on a model's card."""
    return ":" in name or name.endswith("/arguments")
