"""Read YAML into frozen pydantic models, with errors that name the key and suggest the intended one."""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptgen.errors import ConfigError, one_line

M = TypeVar("M", bound=BaseModel)
K = TypeVar("K")

LARGEST_FILE = 1 << 20
"""Largest YAML file that is read, bytes."""

DEEPEST = 50
"""Most levels of lists and mappings inside each other."""

MOST_NODES, NODE_LETTERS = 100_000, 64
"""Most keys and values of a file, those that aliases repeat included; so many letters count as one more."""

UNWRITABLE = re.compile("[\0\ud800-\udfff]")
"""Characters that escapes in quotes can make, and that are not text."""

LONGEST_NUMBER = 18
"""Most digits of a whole number, so that it fits into 64 bits."""

SHOWN_MISTAKES, SHOWN_LETTERS = 20, 80
"""Mistakes in one error, and characters of a key or value in it."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]
"""Name of a model, experiment or energy, which also serves as the name of a folder."""


TAGS = ("type", "method")
"""Keys that tell the members of a union apart."""


class Section(BaseModel):
    """Base of all sections of params.yaml: frozen, without unknown keys, NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def read_yaml(path: Path | str) -> Any:
    """Return the plain content of a YAML file.

    Raises:
        ConfigError: the file is missing, is not YAML, has a duplicate key or a tag, or is too large or too deep.
    """
    try:
        return yaml.load(_read_text(Path(path)), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"cannot read {path} ({error.strerror}); give the path of a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {one_line(error)}") from error


def _read_text(path: Path) -> str:
    """Return the text of a regular file; a pipe or a device might never end."""
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise ConfigError(f"cannot read {path} ({kind}); give the path of a YAML file")
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ConfigError(f"{path} is larger than {LARGEST_FILE >> 20} MB; is it a YAML file of parameters?")
    return content.decode()


def validate(model: type[M], data: Any, folder: Path | None = None, *, strict: bool = True) -> M:
    """Return plain `data` as a `model`; types are converted only if `strict` is false.

    Validators get `folder`, that of the file that `data` was read from, as their context.

    Raises:
        ConfigError: a key is unknown or missing, or its value has a wrong type or is out of range. The message, one
            line, names the dotted paths of all such keys.

    Example:
        >>> class Training(Section):
        ...     steps: int
        >>> validate(Training, {"steps": 10})
        Training(steps=10)
        >>> validate(Training, {"step": 10})
        Traceback (most recent call last):
        promptgen.errors.ConfigError: step is unknown; did you mean steps?; steps is missing
    """
    try:
        # Through JSON, because strict validation of Python objects would reject a list for a tuple.
        return model.model_validate_json(json.dumps(data, default=str), strict=strict, context=folder)
    except ValidationError as error:
        # A misspelt key also leaves the right one missing: report the misspelling first.
        details = sorted(error.errors(include_url=False), key=lambda detail: detail["type"] != "extra_forbidden")
        sentences = [_sentence(model, data, detail) for detail in details[:SHOWN_MISTAKES]]
        more = [f"and {len(details) - SHOWN_MISTAKES} more mistakes"] if len(details) > SHOWN_MISTAKES else []
        raise ConfigError("; ".join([*sentences, *more])) from error


def summing_to_one(shares: dict[K, float]) -> dict[K, float]:
    """Return shares that sum to 1 as they are; refuse others with a ValueError."""
    total = sum(shares.values())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"the shares must sum to 1, these sum to {total:g}")
    return shares


def did_you_mean(word: str, valid_words: Iterable[str]) -> str:
    """Return the end of an error about an unknown word: similar valid words, or all of them if none is similar."""
    words = list(valid_words)
    close = difflib.get_close_matches(word, words)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known are {', '.join(words) or 'none'}"


def _sentence(model: type[BaseModel], data: Any, detail: Mapping[str, Any]) -> str:
    """Return one line that describes one validation error."""
    path, kind = [_short(key) for key in _dotted(data, detail["loc"])], detail["type"]
    where = ".".join(path) or "the file"
    if kind == "missing":
        return f"{where} is missing"
    if kind == "extra_forbidden":
        return f"{where} is unknown{did_you_mean(path[-1], _known_keys(model, detail['loc'][:-1]))}"
    if kind == "union_tag_not_found":
        return f"{where}.{_discriminator(detail)} is missing"
    if kind == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in detail["ctx"]["expected_tags"].split(",")]
        tag = _short(detail["ctx"]["tag"])
        return f"{where}.{_discriminator(detail)}: {tag!r} is unknown{did_you_mean(tag, tags)}"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    return f"{where}: {message}, got {_short(json.dumps(detail['input'], default=str))}"


def _discriminator(detail: Mapping[str, Any]) -> str:
    """Return the key that tells the members of a union apart."""
    return str(detail["ctx"]["discriminator"]).strip("'")


def _short(text: str) -> str:
    """Return the beginning of a text from a file, without control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:SHOWN_LETTERS])


def _dotted(content: Any, location: tuple[str | int, ...]) -> list[str]:
    """Return the keys of `location` that lead through `content`, without the union tags that pydantic inserts."""
    path: list[str] = []
    data: Any = content
    for position, key in enumerate(location):
        data = dict(enumerate(data)) if isinstance(data, list) else data
        if isinstance(data, Mapping) and key in data:
            data = data[key]
        elif position < len(location) - 1 or not isinstance(data, Mapping) or key in map(data.get, TAGS):
            continue
        path.append(str(key))
    return path


def _known_keys(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Return the valid keys of the section at `location` of `model`."""
    annotations: list[Any] = [model]
    for key in location:
        annotations = [inner for outer in annotations for inner in _descend(outer, key)]
    return [field for section in annotations for field in getattr(section, "model_fields", {})]


def _descend(annotation: Any, key: str | int) -> list[Any]:
    """Return the annotations under `key` (a field, a key of a dict, or the tag of a union) of an annotation."""
    inner: list[Any] = []
    for member in _members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            if key in member.model_fields:
                inner += _members(member.model_fields[str(key)].annotation)
            elif any(key in get_args(getattr(member.model_fields.get(tag), "annotation", None)) for tag in TAGS):
                inner.append(member)
        elif get_origin(member) in (dict, list):
            inner += _members(get_args(member)[-1])
    return inner


def _members(annotation: Any) -> list[Any]:
    """Return the members of a union, or the annotation itself, without metadata."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [inner for member in get_args(annotation) for inner in _members(member)]
    return [annotation]


class _Loader(yaml.SafeLoader):
    """YAML 1.2 as DVC reads it: 1e-3 is a number, yes and no are strings.

    Duplicate keys and tags are errors, and so is a file that is deep or large, also by aliases of aliases.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event, before = self.peek_event(), self._nodes  # type: ignore[no-untyped-call]
        anchor, is_alias = event.anchor, isinstance(event, yaml.AliasEvent)
        if is_alias and anchor in self.anchors and anchor not in self._sizes:
            raise _fault(event, f"the alias *{anchor} is inside of what it repeats")
        if not is_alias and event.tag is not None:
            raise _fault(event, f"the tag {event.tag} is not read: write the value without it")
        self._depth += 1
        self._nodes += self._sizes.get(anchor, 1) if is_alias else 1
        if self._depth > DEEPEST:
            raise _fault(event, f"more than {DEEPEST} lists or mappings are inside each other")
        if self._nodes > MOST_NODES:
            raise _fault(event, f"it has more than {MOST_NODES:,} keys and values")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, yaml.ScalarNode) and not is_alias:
            self._nodes += len(node.value) // NODE_LETTERS
            if UNWRITABLE.search(node.value):
                raise _fault(node, "it has a character that no file can hold")
        if anchor and not is_alias:
            self._sizes[anchor] = self._nodes - before
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float):
                raise _fault(key_node, f"a key must be a name, got {key}")
            name = key if isinstance(key, str) else json.dumps(key)  # 1 and "1" are the same key to a model
            if name in seen:
                raise _fault(key_node, f"the key {key} appears twice")
            seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        if len(node.value.lstrip("+-")) > LONGEST_NUMBER:
            raise _fault(node, f"the number {node.value[:LONGEST_NUMBER]}... has more than {LONGEST_NUMBER} digits")
        return int(node.value)


def _fault(place: Any, what: str) -> yaml.YAMLError:
    """Return the error of a node or event, with its line."""
    return yaml.YAMLError(f"{what}, line {place.start_mark.line + 1}")


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_whole_number)
for _tag, _pattern, _first in (
    ("null", r"(?:null|~|)", ["n", "~", ""]),
    ("bool", r"(?:true|false)", ["t", "f"]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.inf|\.nan", list("-+.")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
