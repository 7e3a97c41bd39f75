"""What a pickle would do, found without doing it.

A pickle is a program for a machine with a stack, and reading it the usual way runs it. Here its instructions are
followed with inert records in place of objects: nothing is imported, called or built, and a record never takes more
memory than the bytes that describe it.
"""

from __future__ import annotations

import _compat_pickle
import pickletools
from collections.abc import Callable
from typing import IO, Any

from promptgen.inspection.bounded import BoundedFile, visible
from promptgen.inspection.records import COMPUTED, Call, Global, Items, Persistent, Scan, Table, is_plain

MAX_OPERATIONS = 2_000_000
"""Instructions followed in one pickle; a state dict has about forty for each tensor."""

MAX_MEMO = 1 << 22
"""Largest number under which a pickle may remember an object: some readers make a table as long as that."""

MAX_DEPTH = 64
"""Tuples inside tuples; deeper ones break readers that compute their hash."""

_MARK = object()


class PickleError(ValueError):
    """The bytes are not a pickle, or one that no honest file needs."""


def scan(file: IO[bytes] | BoundedFile) -> Scan:
    """Follow one pickle, from the file's present position to the end of the pickle.

    Args:
        file: what to read; `BoundedFile` keeps lengths that the pickle merely claims from costing memory.

    Raises:
        PickleError: it is not a pickle, or is broken, or needs more than the limits of this module.
    """
    machine = _Machine()
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(file)):  # type: ignore[arg-type]
            if count >= MAX_OPERATIONS:
                raise PickleError(f"it has more than {MAX_OPERATIONS} instructions")
            machine.step(operation.name, argument)
    except (IndexError, KeyError) as error:
        raise PickleError("its instructions take more than they have put down") from error
    except (ValueError, OverflowError, MemoryError) as error:
        raise PickleError(" ".join(str(error).split()) or "it does not fit into memory") from error
    return machine.result


class _Machine:
    """The stack and the memory of the pickle's machine."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.result = Scan()
        self.left = 2 * MAX_OPERATIONS

    def step(self, name: str, argument: Any) -> None:
        """Follow one instruction."""
        if name in _PUSHED:
            self._push_constant(argument)
        elif name in _MADE:
            self.stack.append(_MADE[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME", "READONLY_BUFFER"):
            raise PickleError(f"it has the instruction {name}, which no weight file needs")

    def _push_constant(self, value: Any) -> None:
        if isinstance(value, bytes | bytearray) and len(value) > 3 and value[0] == 0x80 and 2 <= value[1] <= 5:
            self.result.embedded.append(bytes(value))
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        """Take everything off the stack that lies above the last mark, and the mark."""
        for position in range(len(self.stack) - 1, -1, -1):
            if self.stack[position] is _MARK:
                taken = self.stack[position + 1 :]
                del self.stack[position:]
                return taken
        raise IndexError

    def take(self, count: int) -> list[Any]:
        """Take the uppermost `count` objects off the stack, the lowest first."""
        if len(self.stack) < count or any(item is _MARK for item in self.stack[len(self.stack) - count :]):
            raise IndexError
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def drop(self) -> None:
        self.stack.pop()

    def drop_mark(self) -> None:
        self.since_mark()

    def add_tuple(self, items: list[Any]) -> None:
        depth = 1 + max((item.depth for item in items if isinstance(item, Items)), default=0)
        if depth > MAX_DEPTH:
            raise PickleError(f"it has tuples nested deeper than {MAX_DEPTH}")
        self.stack.append(Items(items, "tuple", depth))

    def add_global(self, module: Any, name: Any) -> None:
        """Put down a function or class, by the name that it has today."""
        if not (isinstance(module, str) and isinstance(name, str)):
            module, name = COMPUTED, COMPUTED
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        path = visible(f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}")
        self.result.globals[path] = None
        self.stack.append(Global(path))

    def call(self, function: Any, arguments: Any) -> None:
        """Put down what a call would return."""
        made = Call(function, arguments.items if isinstance(arguments, Items) else [arguments])
        self.spend(len(made.arguments))
        if made.path in _HASHING:
            self._move_items(made)
        self.result.calls.append(made)
        self.stack.append(made)

    def spend(self, count: int) -> None:
        """Count the arguments of calls: a pickle can call with one long tuple again and again."""
        self.left -= count
        if self.left < 0:
            raise PickleError("its calls have more arguments than it has instructions")

    def _move_items(self, made: Call) -> None:
        """Make the argument of a set, or of a dict given as pairs, its content."""
        for argument in made.arguments:
            items = argument.items if isinstance(argument, Items) else []
            self.spend(len(items))
            if made.path == "builtins.set":
                self.check_keys(items)
                continue
            pairs = [pair.items for pair in items if isinstance(pair, Items) and len(pair.items) == 2]
            if len(pairs) < len(items) or not isinstance(argument, Items | Table):
                raise PickleError(f"it gives {made.path} what is not pairs")
            self.check_keys([key for key, _ in pairs])
            made.pairs += [(key, value) for key, value in pairs]

    def check_keys(self, keys: list[Any]) -> None:
        """Refuse keys other than plain values and tuples of them; the hash of deep ones can take for ever."""
        for key in keys:
            inner = key.items if isinstance(key, Items) and key.kind == "tuple" else [key]
            if not all(map(is_plain, inner)):
                raise PickleError("it has a dict or set with a key that is not a plain value")

    def fill(self, items: list[Any]) -> None:
        """Put items into the list or set that lies uppermost, or into what a call would return."""
        target = self.stack[-1]
        if isinstance(target, Items):
            if target.kind == "set":
                self.check_keys(items)
            target.items += items
        elif isinstance(target, Call):
            target.content += items
        else:
            raise PickleError("it appends to what is not a list")

    def set_items(self, items: list[Any]) -> None:
        """Put keys and values, in turn, into the dict that lies uppermost, or into what a call would return."""
        target = self.stack[-1]
        if len(items) % 2 or not isinstance(target, Table | Call):
            raise PickleError("it sets items of what is not a dict")
        self.check_keys(items[::2])
        target.pairs += zip(items[::2], items[1::2], strict=True)

    def build(self, _: Any) -> None:
        (state,) = self.take(1)
        target = self.stack[-1]
        if not isinstance(target, Call):
            raise PickleError("it sets the state of what is not an object")
        target.states.append(state)

    def ask(self, identity: Any) -> None:
        """Put down an object outside the pickle."""
        made = Persistent(identity)
        self.result.persistent.append(made)
        self.stack.append(made)

    def remember(self, index: int) -> None:
        if not 0 <= index <= MAX_MEMO:
            raise PickleError(f"it remembers an object under the number {index}")
        self.memo[index] = self.stack[-1]

    def stop(self, _: Any) -> None:
        (self.result.root,) = self.take(1)

    def call_above_mark(self, _: Any) -> None:
        function, *arguments = self.since_mark() or [None]
        self.call(function, Items(arguments))

    def call_named(self, argument: str) -> None:
        arguments = self.since_mark()
        self.add_global(*_split(argument))
        self.call(self.take(1)[0], Items(arguments))


def _split(argument: str) -> list[str]:
    """Return module and name of an instruction that has them side by side."""
    module, _, name = argument.partition(" ")
    return [module, name]


def _frozen_set(machine: _Machine, _: Any) -> None:
    items = machine.since_mark()
    machine.check_keys(items)
    machine.stack.append(Items(items, "set"))


def _dict_above_mark(machine: _Machine, _: Any) -> None:
    items = machine.since_mark()
    machine.stack.append(Table())
    machine.set_items(items)


def _new_with_keywords(machine: _Machine, _: Any) -> None:
    function, arguments, keywords = machine.take(3)
    machine.call(function, arguments)
    machine.stack[-1].content.append(keywords)


_HASHING = frozenset({"builtins.set", "collections.Counter", "collections.OrderedDict"})
_PUSHED = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING"),
        *("SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "BINUNICODE"),
        *("SHORT_BINUNICODE", "BINUNICODE8"),
    }
)
_MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "MARK": lambda: _MARK,
    "EMPTY_TUPLE": lambda: Items([], "tuple"),
    "EMPTY_LIST": lambda: Items([]),
    "EMPTY_SET": lambda: Items([], "set"),
    "EMPTY_DICT": Table,
    "NEXT_BUFFER": lambda: Persistent(None),
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "POP": lambda machine, _: machine.drop(),
    "POP_MARK": lambda machine, _: machine.drop_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "TUPLE": lambda machine, _: machine.add_tuple(machine.since_mark()),
    "TUPLE1": lambda machine, _: machine.add_tuple(machine.take(1)),
    "TUPLE2": lambda machine, _: machine.add_tuple(machine.take(2)),
    "TUPLE3": lambda machine, _: machine.add_tuple(machine.take(3)),
    "LIST": lambda machine, _: machine.stack.append(Items(machine.since_mark())),
    "FROZENSET": _frozen_set,
    "DICT": _dict_above_mark,
    "APPEND": lambda machine, _: machine.fill(machine.take(1)),
    "APPENDS": lambda machine, _: machine.fill(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.fill(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "GET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "PUT": lambda machine, index: machine.remember(index),
    "BINPUT": lambda machine, index: machine.remember(index),
    "LONG_BINPUT": lambda machine, index: machine.remember(index),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "GLOBAL": lambda machine, argument: machine.add_global(*_split(argument)),
    "STACK_GLOBAL": lambda machine, _: machine.add_global(*machine.take(2)),
    "EXT1": lambda machine, code: machine.add_global("copyreg.extension", str(code)),
    "EXT2": lambda machine, code: machine.add_global("copyreg.extension", str(code)),
    "EXT4": lambda machine, code: machine.add_global("copyreg.extension", str(code)),
    "REDUCE": lambda machine, _: machine.call(*machine.take(2)),
    "NEWOBJ": lambda machine, _: machine.call(*machine.take(2)),
    "NEWOBJ_EX": _new_with_keywords,
    "OBJ": _Machine.call_above_mark,
    "INST": _Machine.call_named,
    "BUILD": _Machine.build,
    "PERSID": lambda machine, identity: machine.ask(identity),
    "BINPERSID": lambda machine, _: machine.ask(machine.take(1)[0]),
    "STOP": _Machine.stop,
}
