"""Inert records of what a pickle would make: what there is in place of its objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_KEY = 1 << 60
"""Integers from here on can have one hash in common, and a dict of many such keys takes for ever."""

LONGEST = 256
"""Characters of a part of a dotted key; a prefix has four times as many, so that depth does not fill the memory."""

COMPUTED = "(computed)"
"""Stands for a name that only running the pickle would give."""


@dataclass(frozen=True, slots=True)
class Global:
    """A function or class by its name."""

    path: str


@dataclass(eq=False, slots=True)
class Items:
    """A tuple, list or set."""

    items: list[Any]
    kind: str = "list"
    depth: int = 0


@dataclass(eq=False, slots=True)
class Table:
    """A dict."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Call:
    """What a call would return: the function, its arguments, and what would be put into the result afterwards."""

    function: Any
    arguments: list[Any]
    content: list[Any] = field(default_factory=list)
    pairs: list[tuple[Any, Any]] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Name of the function; a method or the result of another call has none."""
        return self.function.path if isinstance(self.function, Global) else COMPUTED


@dataclass(eq=False, slots=True)
class Persistent:
    """An object outside the pickle: in a torch file, numbers."""

    identity: Any


@dataclass
class Scan:
    """What a pickle would do.

    Attributes:
        root: record of the object that it would make.
        globals: functions and classes that it names, in the order of their first mention.
        calls: all calls, in order.
        persistent: all objects outside the pickle that it asks for.
        embedded: pieces of bytes inside it that begin like a pickle.
    """

    root: Any = None
    globals: dict[str, None] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    persistent: list[Persistent] = field(default_factory=list)
    embedded: list[bytes] = field(default_factory=list)


def walk(root: Any) -> Iterator[tuple[str, Any]]:
    """Yield every record below `root` with its dotted key; parents first, in the order of the pickle.

    A record that lies in several places is yielded for each; what is in it, for the first one only.
    """
    seen: set[int] = set()
    todo: list[tuple[str, Any]] = [("", root)]
    while todo:
        key, node = todo.pop()
        yield key, node
        if isinstance(node, Items | Table | Call) and id(node) not in seen:
            seen.add(id(node))
            todo += reversed(list(_children(key, node)))


def is_plain(value: Any) -> bool:
    """Say whether a value is a word, a sane integer or a name: what can be a dict's key without a surprise."""
    return isinstance(value, str | bytes | None | Global) or (isinstance(value, int) and abs(value) < MAX_KEY)


def _children(key: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Yield what lies directly in a record; what a call takes and is given has the key of the call."""
    prefix = f"{key[: 4 * LONGEST]}." if key else ""
    if isinstance(node, Items):
        yield from ((f"{prefix}{index}", item) for index, item in enumerate(node.items))
    elif isinstance(node, Table):
        yield from ((f"{prefix}{_text(name)}", value) for name, value in node.pairs)
    elif isinstance(node, Call):
        yield from ((key, part) for part in (node.function, *node.arguments))
        yield from ((f"{prefix}{index}", item) for index, item in enumerate(node.content))
        yield from ((f"{prefix}{_text(name)}", value) for name, value in node.pairs)
        yield from ((key, state) for state in node.states)


def _text(key: Any) -> str:
    """Return a dict's key as a word."""
    return str(key)[:LONGEST] if isinstance(key, str | int | None) else "?"
