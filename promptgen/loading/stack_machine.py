"""Interpret the opcodes of a pickle without running any code that it names.

A pickle is a program for a stack machine that names functions and classes and calls them. This machine creates plain
values and containers, but replaces a name by a `Reference` and the result of a call by a `Record`. Nothing is imported
or called because a file says so. Two machines derive from this one: `promptgen.loading.inspection.pickles` records all
effects; `promptgen.loading.restricted` creates tensors and refuses all names that are not on its list.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

Step = Callable[[Any, Any], None]
"""Effect of one opcode on a machine; the second argument is the opcode's own argument."""

MAX_STEPS = 2_000_000
"""Largest number of opcodes in a pickle, since each can create an object much larger than itself. A state dict has
about forty per tensor."""

MAX_TUPLES = 64
"""Largest nesting depth of tuples; hashing deeper ones breaks readers."""

MAX_INTEGER = 1 << 60
"""Bound on integer keys. Larger integers can share one hash, and a dict of many such keys takes forever."""

SET = "builtins.set"


class PickleError(ValueError):
    """The content is not a pickle, or a pickle that exceeds what honest files need."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A function or class that a file names.

    Attributes:
        name: the dotted name.
    """

    name: str


@dataclass(eq=False, slots=True)
class Record:
    """Description of an object that is not created.

    Attributes:
        name: dotted name of its class, or of the function that would create it.
        arguments: arguments of the call.
        state: state that would be set afterwards, mostly its attributes by name.
        items: items that would be added as to a dict.
        elements: elements that would be added as to a list or set.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


class _Tuple(tuple[Any, ...]):
    """A tuple with the nesting depth of the tuples inside it."""

    depth = 1


class StackMachine:
    """Interprets the opcodes of a pickle; a subclass defines the results of names and calls.

    Attributes:
        steps: the supported opcodes, by name; all others are refused.
        stack: objects pushed since the last mark.
        below: the stacks below each mark.
        memo: stored objects, by index.
    """

    steps: ClassVar[Mapping[str, Step]]

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, source: Any, limit: int = MAX_STEPS) -> Any:
        """Interpret one pickle and return the stand-in for its object.

        Args:
            source: a binary file at the beginning of the pickle, whose reads must be bounded, as those of `BoundedFile`
                are, since their lengths are those that the pickle claims.
            limit: largest number of opcodes.

        Raises:
            PickleError: the pickle has too many opcodes, an unsupported one, or exceeds a bound.
            Exception: any other error, for opcodes that make no sense.
        """
        for number, (opcode, value, _) in enumerate(pickletools.genops(source)):
            if number >= limit:
                raise PickleError(f"it has more than {limit} steps")
            step = self.steps.get(opcode.name)
            if step is None:
                raise PickleError(f"it has the step {opcode.name}, which weight files do not need")
            step(self, value)
        return self.stack.pop()

    def named(self, module: Any, name: Any) -> Any:
        """Return the stand-in for a function or class; `module` and `name` can be any objects of the pickle."""
        raise NotImplementedError

    def called(self, function: Any, arguments: Any) -> Any:
        """Return the stand-in for the result of a call; `function` and `arguments` can be any objects of the pickle."""
        raise NotImplementedError

    def constant(self, value: Any) -> Any:
        """Return the stand-in for a number, a string or bytes."""
        return value

    def put(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        """Start a new stack on top of the current one."""
        self.below.append(self.stack)
        self.stack = []

    def take(self, count: int) -> list[Any]:
        """Pop the top `count` objects; return them, the lowest first."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def take_to_mark(self) -> list[Any]:
        """Pop the last mark and everything above it; return the objects, the lowest first."""
        above, self.stack = self.stack, self.below.pop()
        return above

    def remember(self, index: int) -> None:
        """Store the top object in the memo."""
        self.memo[index] = self.stack[-1]

    def put_tuple(self, items: list[Any]) -> None:
        packed = _Tuple(items)
        if inner := max((item.depth for item in items if isinstance(item, _Tuple)), default=0):
            packed.depth = inner + 1
        if packed.depth > MAX_TUPLES:
            raise PickleError(f"it has tuples nested deeper than {MAX_TUPLES}")
        self.put(packed)

    def check_keys(self, keys: list[Any]) -> None:
        """Refuse keys of a dict or set whose hash or comparison could take forever, such as nested tuples."""
        for key in keys:
            if not isinstance(key, str | bytes | Reference | None) and not (
                isinstance(key, int) and abs(key) < MAX_INTEGER
            ):
                raise PickleError(f"it has a {kind_of(key)} as a key, expected a word or a number")

    def extend(self, items: list[Any]) -> None:
        """Add elements to the top object, as to a list or set."""
        target = self.stack[-1]
        if not isinstance(target, list | Record):
            raise PickleError(f"it appends to a {kind_of(target)}")
        if isinstance(target, Record) and target.name == SET:
            self.check_keys(items)
        (target.elements if isinstance(target, Record) else target).extend(items)

    def update(self, flat: list[Any]) -> None:
        """Add alternating keys and values to the top object, as to a dict."""
        target = self.stack[-1]
        if not isinstance(target, dict | Record) or (isinstance(target, Record) and target.name == SET):
            raise PickleError(f"it puts items into a {kind_of(target)}")
        self.check_keys(flat[::2])
        (target.items if isinstance(target, Record) else target).update(zip(flat[::2], flat[1::2], strict=True))

    def build(self, state: Any) -> None:
        """Set the state of the top object; a plain container ignores it."""
        target = self.stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict):
            raise PickleError(f"it gives attributes to a {kind_of(target)}")


def kind_of(value: Any) -> str:
    """Return the name of an object's type, for errors."""
    return "tuple" if isinstance(value, tuple) else type(value).__name__


def split_name(line: str) -> tuple[str, str]:
    """Return the module and the name in the argument of an opcode."""
    module, _, name = line.partition(" ")
    return module, name


_VALUES = (
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
)
STEPS: dict[str, Step] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    **dict.fromkeys(_VALUES, lambda machine, value: machine.put(machine.constant(value))),
    "NONE": lambda machine, _: machine.put(None),
    "NEWTRUE": lambda machine, _: machine.put(True),
    "NEWFALSE": lambda machine, _: machine.put(False),
    "EMPTY_DICT": lambda machine, _: machine.put({}),
    "EMPTY_LIST": lambda machine, _: machine.put([]),
    "EMPTY_SET": lambda machine, _: machine.put(Record(SET)),
    "EMPTY_TUPLE": lambda machine, _: machine.put_tuple([]),
    "TUPLE1": lambda machine, _: machine.put_tuple(machine.take(1)),
    "TUPLE2": lambda machine, _: machine.put_tuple(machine.take(2)),
    "TUPLE3": lambda machine, _: machine.put_tuple(machine.take(3)),
    "TUPLE": lambda machine, _: machine.put_tuple(machine.take_to_mark()),
    "MARK": lambda machine, _: machine.mark(),
    "BINPUT": lambda machine, index: machine.remember(index),
    "LONG_BINPUT": lambda machine, index: machine.remember(index),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "BINGET": lambda machine, index: machine.put(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.put(machine.memo[index]),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.take_to_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.take_to_mark()),
    "SETITEM": lambda machine, _: machine.update(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.take_to_mark()),
    "GLOBAL": lambda machine, line: machine.put(machine.named(*split_name(line))),
    "STACK_GLOBAL": lambda machine, _: machine.put(machine.named(*machine.take(2))),
    "REDUCE": lambda machine, _: machine.put(machine.called(*machine.take(2))),
    "NEWOBJ": lambda machine, _: machine.put(machine.called(*machine.take(2))),
    "BUILD": lambda machine, _: machine.build(*machine.take(1)),
}
"""Opcodes of plain data and weights, from protocol 2: the only ones in files that are read as data."""
