"""Whether the flow of a pass was trained for what params.yaml asks for now, by the manifest of its training.

How it was trained (steps, size, seed) does not matter here, nor does the version of this project's code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from promptgen.config.params import Control, Debias
from promptgen.errors import ConfigError
from promptgen.strict import validate
from steps.fit_moments import MOMENTS_NAME
from steps.shared.common import Pass
from steps.shared.manifest import StepFolder
from steps.train_flow import plan_of

NAMED = 4
"""So many differences are named in an error."""

PURPOSE = {
    "control": ("energies", "condition"),
    "debias": ("attribute", "target", "classifier", "features", "weight", "dual"),
}
"""The parameters of a kind of pass that say what its flow is trained for."""


def check_purpose(run_pass: Pass) -> list[str]:
    """Return what makes it doubtful that a pass was trained for what params.yaml asks for; mostly nothing.

    Parameters and weight files must be the same. The text of the user's own modules and the cards of models may have
    changed and mean the same, so they only make a doubt.

    Raises:
        ConfigError: it was trained for something else; the message names what differs.
        DataError: the flow has not been trained yet.
    """
    made_from = StepFolder(run_pass.folder("train_flow"), "").manifest().get("made_from")
    if not made_from:
        return [_unknown(run_pass, "an earlier version did not write it down")]
    try:
        different = list(_different_params(run_pass, made_from["params"]))
    except ConfigError as error:  # of parameters that an earlier version knew
        return [_unknown(run_pass, str(error))]
    _refuse(run_pass, different)
    changed = [
        name for name, sha256 in plan_of(run_pass).inputs.items() if made_from["inputs"].get(name, sha256) != sha256
    ]
    _refuse(run_pass, [f"{name} is another file now" for name in changed if _decides(run_pass, name)])
    return [
        f"{name} has changed since pass {run_pass.number} was trained: if the energy is another one now, train it again"
        for name in changed
        if _is_code(name)
    ]


def _unknown(run_pass: Pass, why: str) -> str:
    return (
        f"nothing tells what pass {run_pass.number} was trained for ({why}): if params.yaml has changed, train it again"
    )


def _refuse(run_pass: Pass, different: Sequence[str]) -> None:
    if different:
        more = [f"{len(different) - NAMED} more"] if len(different) > NAMED else []
        steps = ("train_flow",) if run_pass.kind == "control" else ("fit_moments", "train_flow")
        raise ConfigError(
            f"pass {run_pass.number} was not trained for what params.yaml asks for: "
            f"{', '.join([*different[:NAMED], *more])}; restore that, or train the pass again with "
            + " and ".join(f"`promptgen step {step} --pass {run_pass.number}`" for step in steps)
        )


def _different_params(run_pass: Pass, recorded: Mapping[str, Any]) -> Iterator[str]:
    """Yield each parameter of what the flow is for that is not what it was."""
    kind = "control" if "energies" in recorded else "debias"
    if kind != run_pass.kind:
        yield f"it was a {kind} pass, and is a {run_pass.kind} pass now"
        return
    section: Control | Debias = getattr(run_pass.params, kind)
    # Read by the present models, so that a parameter that has come since, with a default, is no difference. A control
    # without a condition was recorded as an empty one.
    purpose = {name: recorded[name] or None for name in PURPOSE[kind] if name in recorded}
    then = validate(type(section), {**section.model_dump(mode="json"), **purpose})
    yield from _differences(kind, _purpose(then), _purpose(section))


def _purpose(section: Control | Debias) -> dict[str, Any]:
    """Return the parameters that say what a flow is for."""
    if isinstance(section, Control):
        purpose = section.model_dump(mode="json", include=set(PURPOSE["control"]))
        return {**purpose, "condition": section.box.names}  # the ranges only say where it was trained
    purpose = section.model_dump(mode="json", include=set(PURPOSE["debias"]))
    return {**purpose, "dual": None if section.dual is None else "set"}  # where it took the multipliers is recorded


def _differences(path: str, then: Any, now: Any) -> Iterator[str]:
    """Yield what differs between two values, with the dotted path of each difference."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in sorted(then.keys() | now.keys()):
            if name in then and name in now:
                yield from _differences(f"{path}.{name}", then[name], now[name])
            else:
                yield f"{path}.{name} is {'new' if name in now else 'not there any more'}"
    elif then != now:
        was, is_now = (json.dumps(value, ensure_ascii=False) for value in (then, now))
        yield f"{path} was {was} and is {is_now}"


def _is_code(name: str) -> bool:
    """Tell whether an input is a dotted path, or the arguments on a model's card."""
    return ":" in name or name.endswith("/arguments")


def _decides(run_pass: Pass, name: str) -> bool:
    """Tell whether an input is a file that the energy follows from: multipliers that moved are recorded elsewhere."""
    return not _is_code(name) and (name != MOMENTS_NAME or run_pass.params.debias.dual is None)
