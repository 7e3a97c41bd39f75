"""Target shares in other notations than a mapping: the weighted choices of prompt tools, and tables in CSV files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationInfo

from promptgen.csv_file import read_csv
from promptgen.errors import ConfigError, DataError
from promptgen.strict import summing_to_one

EXAMPLE = '"{60::short|40::long}"'
COLUMNS = ("label", "share")

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
OPTION = re.compile(r"[^{}|]*")


def is_choices(text: str) -> bool:
    """Return whether a text is a weighted choice, ``{60::short|40::long}``, rather than the name of a file."""
    return text.strip().startswith("{")


def shares_of_choices(text: str) -> dict[str, float]:
    """Return the share of each label in a weighted choice, as prompts write it.

    Weights are relative; a label without one weighs 1.

    Raises:
        ConfigError: the text is not such a choice, a weight is not positive, or a label appears twice.

    Example:
        >>> shares_of_choices("{3::short | long}")
        {'short': 0.75, 'long': 0.25}
    """
    inner = text.strip().removeprefix("{").removesuffix("}")
    options = inner.split("|")
    if text.strip() != f"{{{inner}}}" or not all(map(OPTION.fullmatch, options)) or "$$" in inner:
        raise ConfigError(f"a choice should be one pair of braces around options, such as {EXAMPLE}")
    weights = _collected(map(_weighted, options), "weight")
    total = sum(weights.values())
    return {label: weight / total for label, weight in weights.items()}


def shares_of_table(path: Path) -> dict[str, float]:
    """Return the share of each label in a CSV file with the columns label and share; names above them are optional.

    Raises:
        ConfigError: the file is missing or no such table, a label appears twice, a share is not a positive number, or
            the shares do not sum to 1.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path}; give shares by label, a choice such as {EXAMPLE}, or a CSV file")
    try:
        table = read_csv(path)
    except DataError as error:
        raise ConfigError(str(error)) from error
    names = [name.casefold() for name in table.names]
    if set(COLUMNS) <= set(names):
        rows, places = table.rows, [names.index(name) for name in COLUMNS]
    elif len(names) == len(COLUMNS) and NUMBER.fullmatch(names[1]):
        rows, places = [table.names, *table.rows], [0, 1]
    else:
        raise ConfigError(f"{path} has the columns {', '.join(table.names)}; expected {' and '.join(COLUMNS)}")
    try:
        return summing_to_one(_collected(((row[places[0]], row[places[1]]) for row in rows), "share"))
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def resolved(value: Any, info: ValidationInfo) -> Any:
    """Return the mapping that a choice or the name of a file stands for, and any other value as it is.

    The context of the validation is the folder that a relative path starts at; None is the current one.
    """
    if isinstance(value, Mapping) and any("|" in label and share is None for label, share in value.items()):
        raise ValueError(f"should be in quotes, because braces alone are a mapping of YAML: {EXAMPLE}")
    if not isinstance(value, str):
        return value
    try:
        return shares_of_choices(value) if is_choices(value) else shares_of_table((info.context or Path()) / value)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _weighted(option: str) -> tuple[str, str]:
    """Return the label of an option and its weight as text."""
    weight, mark, label = option.partition("::")
    return (label.strip(), weight.strip()) if mark else (option.strip(), "1")


def _collected(pairs: Iterable[tuple[str, str]], noun: str) -> dict[str, float]:
    """Return numbers by label."""
    numbers: dict[str, float] = {}
    for label, text in pairs:
        if not label:
            raise ConfigError(f"the {noun} {text} has no label; write one beside it")
        if label in numbers:
            raise ConfigError(f"{label} has two {noun}s; give one")
        if not NUMBER.fullmatch(text) or not 0 < float(text) < float("inf"):
            raise ConfigError(f"the {noun} of {label} should be a number greater than 0, not {text or 'empty'}")
        numbers[label] = float(text)
    return numbers
