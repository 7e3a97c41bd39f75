"""The stack machine that a pickle is a program of, with nothing in it that a program could run.

A pickle names functions and classes and has them called. Here its steps are taken one by one instead, and a subclass
says what stands for each object. Nothing is imported or called because a file says so.
"""

from __future__ import annotations

import pickletools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal

Step = Callable[[Any, Any], None]
"""What a machine does on one step, given the step's own value."""


class PickleError(ValueError):
    """The bytes are not a pickle, or one that no honest file needs."""


class StackMachine(ABC):
    """Takes the steps of a pickle.

    Args:
        steps: the steps that it knows, by name; any other is refused.

    Attributes:
        stack: what has been put down since the last mark.
        below: the stacks under each mark.
        memo: what can be put down again, by number.
    """

    def __init__(self, steps: Mapping[str, Step]) -> None:
        self.steps = steps
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, source: Any, limit: int) -> Any:
        """Take all steps of one pickle and return what stands for its object.

        Args:
            source: a binary file at the pickle's beginning, of which `read`, `readline` and `tell` are used. It must
                bound what it returns: the lengths of its reads are those that the pickle claims.
            limit: most steps; one can make an object that is much larger than itself.

        Raises:
            PickleError: it has more steps, or unknown ones, or what the subclass refuses.
            Exception: of any other kind, for steps that make no sense.
        """
        for number, (opcode, value, _) in enumerate(pickletools.genops(source)):
            if number >= limit:
                raise PickleError(f"it has more than {limit} steps")
            step = self.steps.get(opcode.name)
            if step is None:
                raise PickleError(f"it has the step {opcode.name}, which files of weights do without")
            step(self, value)
        return self.stack.pop()

    def put(self, thing: Any) -> None:
        self.stack.append(thing)

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

    def constant(self, value: Any) -> Any:
        """Return what stands for a number, a text or bytes."""
        return value

    @abstractmethod
    def empty(self, kind: Literal["dict", "list", "set"]) -> Any:
        """Return what stands for an empty container."""

    @abstractmethod
    def tuple_of(self, items: list[Any]) -> Any:
        """Return what stands for a tuple."""

    @abstractmethod
    def extend(self, items: list[Any]) -> None:
        """Put items into the uppermost object, as into a list or set."""

    @abstractmethod
    def update(self, flat: list[Any]) -> None:
        """Put keys and values, in turn, into the uppermost object, as into a dict."""

    @abstractmethod
    def build(self, state: Any) -> None:
        """Give the uppermost object a state."""

    @abstractmethod
    def named(self, module: Any, name: Any) -> Any:
        """Return what stands for a function or class; a pickle can give any objects as its module and name."""

    @abstractmethod
    def called(self, function: Any, arguments: Any) -> Any:
        """Return what stands for the result of a call; a pickle can have anything called with anything."""


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
    "EMPTY_DICT": lambda machine, _: machine.put(machine.empty("dict")),
    "EMPTY_LIST": lambda machine, _: machine.put(machine.empty("list")),
    "EMPTY_SET": lambda machine, _: machine.put(machine.empty("set")),
    "EMPTY_TUPLE": lambda machine, _: machine.put(machine.tuple_of([])),
    "TUPLE1": lambda machine, _: machine.put(machine.tuple_of(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.put(machine.tuple_of(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.put(machine.tuple_of(machine.take(3))),
    "TUPLE": lambda machine, _: machine.put(machine.tuple_of(machine.take_to_mark())),
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
