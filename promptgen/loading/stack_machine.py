"""The stack machine that a pickle is a program for, with nothing in it that a program could run.

A pickle names functions and classes and has them called. Here its steps are followed one by one instead: containers
and plain values become themselves, a name becomes a `Reference`, and whatever a call would return becomes a `Record` of
the call. Nothing is imported or called because a file says so. Two machines derive from this one:
`promptgen.loading.inspection.pickles` records everything, `promptgen.loading.restricted` makes tensors and refuses all
names that are not on its list.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

Step = Callable[[Any, Any], None]
"""What a machine does on one step, given the step's own value."""

MAX_STEPS = 2_000_000
"""Steps of one pickle: each can make an object much larger than itself. A state dict takes about forty per tensor."""

MAX_TUPLES = 64
"""Tuples inside tuples; deeper ones break readers that compute their hash."""

MAX_INTEGER = 1 << 60
"""Integers of this size and above can share one hash, and a dict of many such keys takes for ever."""

SET = "builtins.set"


class PickleError(ValueError):
    """The bytes are not a pickle, or one that no honest file needs."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A function or class that a file names.

    Attributes:
        name: the dotted name.
    """

    name: str


@dataclass(eq=False, slots=True)
class Record:
    """What a file says about an object that is not made.

    Attributes:
        name: dotted name of its class, or of the function that would have made it.
        arguments: what that would have been called with.
        state: what the object would have been given afterwards, mostly its attributes by name.
        items: what would have been put into it as into a dict.
        elements: what would have been put into it as into a list or set.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


class _Tuple(tuple[Any, ...]):
    """A tuple that knows how deep the tuples inside it are nested."""

    depth = 1


class StackMachine:
    """Follows the steps of a pickle; a subclass says what a name and a call stand for.

    Attributes:
        steps: the steps that it knows, by name; any other is refused.
        stack: what has been put down since the last mark.
        below: the stacks under each mark.
        memo: what can be put down again, by number.
    """

    steps: ClassVar[Mapping[str, Step]]

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, source: Any, limit: int = MAX_STEPS) -> Any:
        """Follow one pickle and return what stands for its object.

        Args:
            source: a binary file at the beginning of the pickle, which must bound what it returns, as `BoundedFile`
                does: the lengths of its reads are those that the pickle claims.
            limit: most steps.

        Raises:
            PickleError: it has too many steps, unknown ones, or what no honest file needs.
            Exception: of any other kind, for steps that make no sense.
        """
        for number, (opcode, value, _) in enumerate(pickletools.genops(source)):
            if number >= limit:
                raise PickleError(f"it has more than {limit} steps")
            step = self.steps.get(opcode.name)
            if step is None:
                raise PickleError(f"it has the step {opcode.name}, which weight files do without")
            step(self, value)
        return self.stack.pop()

    def named(self, module: Any, name: Any) -> Any:
        """Return what stands for a function or class; a pickle can give any objects as its module and name."""
        raise NotImplementedError

    def called(self, function: Any, arguments: Any) -> Any:
        """Return what stands for the result of a call; a pickle can have anything called with anything."""
        raise NotImplementedError

    def constant(self, value: Any) -> Any:
        """Return what stands for a number, a text or bytes."""
        return value

    def put(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        """Begin a new stack on top of the present one."""
        self.below.append(self.stack)
        self.stack = []

    def take(self, count: int) -> list[Any]:
        """Take the uppermost `count` objects off the stack; return them, the lowest first."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def take_to_mark(self) -> list[Any]:
        """Take everything above the last mark off the stack, and the mark; return it, the lowest first."""
        above, self.stack = self.stack, self.below.pop()
        return above

    def remember(self, index: int) -> None:
        """Keep the uppermost object under a number."""
        self.memo[index] = self.stack[-1]

    def put_tuple(self, items: list[Any]) -> None:
        made = _Tuple(items)
        if inner := max((item.depth for item in items if isinstance(item, _Tuple)), default=0):
            made.depth = inner + 1
        if made.depth > MAX_TUPLES:
            raise PickleError(f"it has tuples nested deeper than {MAX_TUPLES}")
        self.put(made)

    def check_keys(self, keys: list[Any]) -> None:
        """Refuse keys of a dict or set whose hash or comparison could take for ever, such as nested tuples."""
        for key in keys:
            if not isinstance(key, str | bytes | Reference | None) and not (
                isinstance(key, int) and abs(key) < MAX_INTEGER
            ):
                raise PickleError(f"it has a {kind_of(key)} as a key, expected a word or a number")

    def extend(self, items: list[Any]) -> None:
        """Put items into the uppermost object, as into a list or set."""
        target = self.stack[-1]
        if not isinstance(target, list | Record):
            raise PickleError(f"it appends to a {kind_of(target)}")
        if isinstance(target, Record) and target.name == SET:
            self.check_keys(items)
        (target.elements if isinstance(target, Record) else target).extend(items)

    def update(self, flat: list[Any]) -> None:
        """Put keys and values, in turn, into the uppermost object, as into a dict."""
        target = self.stack[-1]
        if not isinstance(target, dict | Record) or (isinstance(target, Record) and target.name == SET):
            raise PickleError(f"it puts items into a {kind_of(target)}")
        self.check_keys(flat[::2])
        (target.items if isinstance(target, Record) else target).update(zip(flat[::2], flat[1::2], strict=True))

    def build(self, state: Any) -> None:
        """Give the uppermost object a state; a plain container does not keep it."""
        target = self.stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict):
            raise PickleError(f"it gives attributes to a {kind_of(target)}")


def kind_of(value: Any) -> str:
    """Return the name of an object's type, for errors."""
    return "tuple" if isinstance(value, tuple) else type(value).__name__


def split_name(line: str) -> tuple[str, str]:
    """Return module and name of a step that has them side by side."""
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
"""The steps of plain data and of weights from protocol 2 on: all that a file may have which is read as data."""
