"""List what a pickle would do without running it: the names it uses, its calls and their arguments."""

from __future__ import annotations

import _compat_pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from promptgen.loading.inspection.bounded import BoundedFile, visible
from promptgen.loading.stack_machine import (
    MAX_STEPS,
    SET,
    STEPS,
    PickleError,
    Record,
    Reference,
    StackMachine,
    kind_of,
    split_name,
)

MAX_MEMO = 1 << 22
"""Largest memo index of a pickle; some readers allocate a table of that length."""

COMPUTED = "(computed)"
"""Name of a record whose function is known only by running the pickle; real names differ, since they contain a dot."""

HASHING = frozenset({SET, "collections.Counter", "collections.OrderedDict"})
"""Classes that hash the elements of their argument."""


@dataclass(eq=False, slots=True)
class Outside:
    """An object stored outside the pickle; in a torch file, a storage of numbers."""

    identity: Any


@dataclass
class Scan:
    """Effects of a pickle.

    Attributes:
        root: stand-in for the object that the pickle would create.
        names: names of the functions and classes that it uses, in the order of their first use.
        calls: all calls, in order.
        outside: the objects outside the pickle that it requests.
        states: the objects whose state it sets, with the state.
        embedded: byte strings inside it that begin like a pickle.
    """

    root: Any = None
    names: dict[str, None] = field(default_factory=dict)
    calls: list[Record] = field(default_factory=list)
    outside: list[Outside] = field(default_factory=list)
    states: list[tuple[Any, Any]] = field(default_factory=list)
    embedded: list[bytes] = field(default_factory=list)


def scan(file: IO[bytes] | BoundedFile) -> Scan:
    """List the effects of one pickle, read from the current position of the file to the end of the pickle.

    Args:
        file: an open binary file; a `BoundedFile` prevents claimed lengths from costing memory.

    Raises:
        PickleError: the content is not a pickle, is damaged, or exceeds the limits of this module.
    """
    machine = _Scanner()
    try:
        machine.result.root = machine.run(file)
    except (IndexError, KeyError) as error:
        raise PickleError("its instructions pop more objects than they push") from error
    except (ValueError, OverflowError, MemoryError) as error:
        raise PickleError(" ".join(str(error).split()) or "it does not fit into memory") from error
    return machine.result


class _Scanner(StackMachine):
    """Records every effect, for all protocols, and refuses only what would cost too much memory or time."""

    def __init__(self) -> None:
        super().__init__()
        self.result = Scan()
        self.arguments_left = 2 * MAX_STEPS

    def constant(self, value: Any) -> Any:
        if isinstance(value, bytes | bytearray) and len(value) > 3 and value[0] == 0x80 and 2 <= value[1] <= 5:
            self.result.embedded.append(bytes(value))
        return value

    def remember(self, index: int) -> None:
        if not 0 <= index <= MAX_MEMO:
            raise PickleError(f"it stores an object under the memo index {index}, expected at most {MAX_MEMO}")
        super().remember(index)

    def named(self, module: Any, name: Any) -> Reference:
        """Return a reference to a function or class under its Python 3 name."""
        if not (isinstance(module, str) and isinstance(name, str)):
            module, name = COMPUTED, COMPUTED
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        path = visible(f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}")
        self.result.names[path] = None
        return Reference(path)

    def called(self, function: Any, arguments: Any) -> Record:
        arguments = arguments if isinstance(arguments, tuple) else (arguments,)
        record = Record(function.name if isinstance(function, Reference) else COMPUTED, arguments)
        self._spend(len(arguments))
        if record.name in HASHING:
            for argument in arguments:
                self._hash(record, argument)
        self.result.calls.append(record)
        return record

    def _spend(self, count: int) -> None:
        """Count the arguments of calls, since a pickle can pass one long tuple again and again."""
        self.arguments_left -= count
        if self.arguments_left < 0:
            raise PickleError("its calls have more arguments than it has instructions")

    def _hash(self, record: Record, argument: Any) -> None:
        """Add the elements in the argument of a set or dict to the record."""
        if not isinstance(argument, list | tuple | dict):
            raise PickleError(f"it makes a {record.name} of a {kind_of(argument)}")
        self._spend(len(argument))
        if isinstance(argument, dict):  # its keys have been checked
            record.items.update(argument)
        elif record.name == SET:
            self.check_keys(list(argument))
            record.elements.extend(argument)
        else:
            for pair in argument:
                if not isinstance(pair, list | tuple) or len(pair) != 2:
                    raise PickleError(f"it makes a {record.name} of elements that are not pairs")
                self.check_keys([pair[0]])
                record.items[pair[0]] = pair[1]

    def build(self, state: Any) -> None:
        super().build(state)
        self.result.states.append((self.stack[-1], state))

    def put_outside(self, identity: Any) -> None:
        self.put(Outside(identity))
        self.result.outside.append(self.stack[-1])

    def put_filled(self, container: Any, fill: Callable[[list[Any]], None]) -> None:
        """Push a container filled with everything above the last mark."""
        content = self.take_to_mark()
        self.put(container)
        fill(content)

    def pop(self) -> None:
        """Drop the top object, or the mark if nothing is above it."""
        if self.stack:
            self.stack.pop()
        else:
            self.take_to_mark()

    def call_with_keywords(self, function: Any, arguments: Any, keywords: Any) -> None:
        self.put(self.called(function, arguments))
        self.stack[-1].elements.append(keywords)

    def call_above_mark(self) -> None:
        function, *arguments = self.take_to_mark()
        self.put(self.called(function, tuple(arguments)))

    steps = STEPS | {
        **dict.fromkeys(
            ("INT", "LONG", "FLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BYTEARRAY8"),
            STEPS["BINBYTES"],
        ),
        **dict.fromkeys(
            ("EXT1", "EXT2", "EXT4"), lambda machine, code: machine.put(machine.named("copyreg.extension", str(code)))
        ),
        "GET": STEPS["BINGET"],
        "PUT": STEPS["BINPUT"],
        "POP": lambda machine, _: machine.pop(),
        "POP_MARK": lambda machine, _: machine.take_to_mark(),
        "DUP": lambda machine, _: machine.put(machine.stack[-1]),
        "LIST": lambda machine, _: machine.put_filled([], machine.extend),
        "DICT": lambda machine, _: machine.put_filled({}, machine.update),
        "FROZENSET": lambda machine, _: machine.put_filled(Record(SET), machine.extend),
        "NEWOBJ_EX": lambda machine, _: machine.call_with_keywords(*machine.take(3)),
        "OBJ": lambda machine, _: machine.call_above_mark(),
        "INST": lambda machine, line: machine.put(
            machine.called(machine.named(*split_name(line)), tuple(machine.take_to_mark()))
        ),
        "PERSID": lambda machine, identity: machine.put_outside(identity),
        "BINPERSID": lambda machine, _: machine.put_outside(*machine.take(1)),
        "NEXT_BUFFER": lambda machine, _: machine.put_outside(None),
        "READONLY_BUFFER": lambda machine, _: None,
    }
    """Adds the opcodes of protocols 0 and 1, and those that weight files do not need."""
