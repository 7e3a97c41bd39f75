"""What a pickle would do, found without doing it.

A pickle is a program for a machine with a stack, and reading it the usual way runs it. Here its instructions are
followed with inert records in place of objects: nothing is imported, called or built, and a record never takes more
memory than the bytes that describe it.
"""

from __future__ import annotations

import _compat_pickle
from typing import IO, Any, Literal

from promptgen.loading.inspection.bounded import BoundedFile, visible
from promptgen.loading.inspection.records import COMPUTED, Call, Global, Items, Persistent, Scan, Table, is_plain
from promptgen.loading.stack_machine import STEPS, PickleError, StackMachine, Step, split_name

MAX_OPERATIONS = 2_000_000
"""Instructions followed in one pickle; a state dict has about forty for each tensor."""

MAX_MEMO = 1 << 22
"""Largest number under which a pickle may remember an object: some readers make a table as long as that."""

MAX_DEPTH = 64
"""Tuples inside tuples; deeper ones break readers that compute their hash."""


def scan(file: IO[bytes] | BoundedFile) -> Scan:
    """Follow one pickle, from the file's present position to the end of the pickle.

    Args:
        file: what to read; `BoundedFile` keeps lengths that the pickle merely claims from costing memory.

    Raises:
        PickleError: it is not a pickle, or is broken, or needs more than the limits of this module.
    """
    machine = _Scanner()
    try:
        machine.result.root = machine.run(file, MAX_OPERATIONS)
    except (IndexError, KeyError) as error:
        raise PickleError("its instructions take more than they have put down") from error
    except (ValueError, OverflowError, MemoryError) as error:
        raise PickleError(" ".join(str(error).split()) or "it does not fit into memory") from error
    return machine.result


class _Scanner(StackMachine):
    """Puts down records in place of objects, and keeps a list of what would happen."""

    def __init__(self) -> None:
        super().__init__(STEPS | _OTHER_STEPS)
        self.result = Scan()
        self.left = 2 * MAX_OPERATIONS

    def constant(self, value: Any) -> Any:
        if isinstance(value, bytes | bytearray) and len(value) > 3 and value[0] == 0x80 and 2 <= value[1] <= 5:
            self.result.embedded.append(bytes(value))
        return value

    def empty(self, kind: Literal["dict", "list", "set"]) -> Items | Table:
        return Table() if kind == "dict" else Items([], kind)

    def tuple_of(self, items: list[Any]) -> Items:
        depth = 1 + max((item.depth for item in items if isinstance(item, Items)), default=0)
        if depth > MAX_DEPTH:
            raise PickleError(f"it has tuples nested deeper than {MAX_DEPTH}")
        return Items(items, "tuple", depth)

    def remember(self, index: int) -> None:
        if not 0 <= index <= MAX_MEMO:
            raise PickleError(f"it remembers an object under the number {index}")
        super().remember(index)

    def named(self, module: Any, name: Any) -> Global:
        """Return a function or class, by the name that it has today."""
        if not (isinstance(module, str) and isinstance(name, str)):
            module, name = COMPUTED, COMPUTED
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        path = visible(f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}")
        self.result.globals[path] = None
        return Global(path)

    def called(self, function: Any, arguments: Any) -> Call:
        made = Call(function, arguments.items if isinstance(arguments, Items) else [arguments])
        self.spend(len(made.arguments))
        if made.path in _HASHING:
            self._move_items(made)
        self.result.calls.append(made)
        return made

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

    def extend(self, items: list[Any]) -> None:
        """Put items into a list or set, or into what a call would return."""
        target = self.stack[-1]
        if isinstance(target, Items):
            if target.kind == "set":
                self.check_keys(items)
            target.items += items
        elif isinstance(target, Call):
            target.content += items
        else:
            raise PickleError("it appends to what is not a list")

    def update(self, flat: list[Any]) -> None:
        """Put keys and values, in turn, into a dict, or into what a call would return."""
        target = self.stack[-1]
        if len(flat) % 2 or not isinstance(target, Table | Call):
            raise PickleError("it sets items of what is not a dict")
        self.check_keys(flat[::2])
        target.pairs += zip(flat[::2], flat[1::2], strict=True)

    def build(self, state: Any) -> None:
        target = self.stack[-1]
        if not isinstance(target, Call):
            raise PickleError("it sets the state of what is not an object")
        target.states.append(state)

    def outside(self, identity: Any) -> Persistent:
        """Return an object outside the pickle."""
        made = Persistent(identity)
        self.result.persistent.append(made)
        return made

    def pop(self) -> None:
        """Drop the uppermost object, or the mark if nothing lies on it."""
        if self.stack:
            self.stack.pop()
        else:
            self.take_to_mark()

    def frozen_set(self, items: list[Any]) -> Items:
        self.check_keys(items)
        return Items(items, "set")

    def put_dict(self, flat: list[Any]) -> None:
        self.put(Table())
        self.update(flat)

    def put_with_keywords(self, function: Any, arguments: Any, keywords: Any) -> None:
        self.put(self.called(function, arguments))
        self.stack[-1].content.append(keywords)

    def call_above_mark(self) -> Call:
        function, *arguments = self.take_to_mark()
        return self.called(function, Items(arguments))


_HASHING = frozenset({"builtins.set", "collections.Counter", "collections.OrderedDict"})
_OTHER_VALUES = ("INT", "LONG", "FLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BYTEARRAY8")
_OTHER_STEPS: dict[str, Step] = {
    **dict.fromkeys(_OTHER_VALUES, STEPS["BINBYTES"]),
    **dict.fromkeys(
        ("EXT1", "EXT2", "EXT4"), lambda machine, code: machine.put(machine.named("copyreg.extension", str(code)))
    ),
    "GET": STEPS["BINGET"],
    "PUT": STEPS["BINPUT"],
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": lambda machine, _: machine.take_to_mark(),
    "DUP": lambda machine, _: machine.put(machine.stack[-1]),
    "LIST": lambda machine, _: machine.put(Items(machine.take_to_mark())),
    "FROZENSET": lambda machine, _: machine.put(machine.frozen_set(machine.take_to_mark())),
    "DICT": lambda machine, _: machine.put_dict(machine.take_to_mark()),
    "NEWOBJ_EX": lambda machine, _: machine.put_with_keywords(*machine.take(3)),
    "OBJ": lambda machine, _: machine.put(machine.call_above_mark()),
    "INST": lambda machine, line: machine.put(
        machine.called(machine.named(*split_name(line)), Items(machine.take_to_mark()))
    ),
    "PERSID": lambda machine, identity: machine.put(machine.outside(identity)),
    "BINPERSID": lambda machine, _: machine.put(machine.outside(*machine.take(1))),
    "NEXT_BUFFER": lambda machine, _: machine.put(Persistent(None)),
    "READONLY_BUFFER": lambda machine, _: None,
}
"""The steps of protocols 0 and 1, and those that files of weights do without."""
