"""Pickles that are refused: for a name, a step, a program that makes no sense, and for damage of every kind."""

import contextlib
import pickle
import re
import struct

import numpy as np
import pytest
import torch

from promptgen.errors import ModelFileError
from promptgen.loading import restricted
from promptgen.loading.stack_machine import Record, Reference
from tests.loading.restricted.classes import CLASSES, Box

DATA = dict | list | tuple | Record | Reference | str | bytes | int | float | torch.Tensor | None


def named(module, name, arguments=b"(t", end=b"R."):
    """A pickle that calls module.name."""
    return b"\x80\x03c" + f"{module}\n{name}\n".encode() + arguments + end


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("builtins", "int.__subclasses__"),
        ("builtins", "type"),
        ("operator", "attrgetter"),
        ("functools", "partial"),
        ("importlib", "import_module"),
        ("pickle", "loads"),
        ("torch", "load"),
        ("torch.storage", "torch.load"),
        ("torch._utils", "_rebuild_qtensor"),
        ("torch.nn.modules.container", "Sequential"),
        ("promptgen.loading.restricted", "read_pickle"),
        ("no.such.module", "thing"),
        ("x" * 500, "y" * 500),
    ],
)
@pytest.mark.parametrize("protocol", [3, 4])
def test_names_that_are_not_on_the_list(refused, module, name, protocol):
    content = named(module, name, b"X\x04\x00\x00\x00exit\x85")
    if protocol == 4:
        words = b"".join(b"X" + struct.pack("<I", len(word)) + word.encode() for word in (module, name))
        content = b"\x80\x04" + words + b"\x93(tR."
    assert f"asks for {f'{module}.{name}'[:80]}" in refused(content)


def test_a_name_with_other_characters_is_shown_in_ascii(refused):
    words = b"".join(b"X" + struct.pack("<I", len(word)) + word for word in (b"os\n\x1b[31m", "sÿstem".encode()))
    assert "asks for os [31m.s\\xffstem" in refused(b"\x80\x04" + words + b"\x93.").replace("\x1b", "")


@pytest.mark.parametrize(
    ("step", "content"),
    [
        ("INST", b"(ios\nsystem\n."),
        ("OBJ", b"(cbuiltins\nint\no."),
        ("PERSID", b"Psome\n."),
        ("BINPERSID", b"\x80\x03]Q."),
        ("EXT1", b"\x80\x02\x82\x01."),
        ("EXT2", b"\x80\x02\x83\x01\x00."),
        ("EXT4", b"\x80\x02\x84\x01\x00\x00\x00."),
        ("NEWOBJ_EX", b"\x80\x04cbuiltins\nint\n)}\x92."),
        ("BYTEARRAY8", b"\x80\x05\x96" + bytes(8) + b"."),
        ("NEXT_BUFFER", b"\x80\x05\x97."),
        ("GET", b"g0\n."),
        ("PUT", b"]p0\n."),
        ("DUP", b"]2."),
        ("STRING", b"S'abc'\n."),
        ("LONG", b"L1L\n."),
    ],
)
def test_steps_that_plain_data_do_without(refused, step, content):
    assert f"it has the step {step}, which weight files do not need" in refused(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x03)R.", "IndexError|empty list"),
        (b"\x80\x03])R.", "it calls a list with a tuple"),
        (b"\x80\x03cbuiltins\nint\n)\x81)R.", "it calls a Record with a tuple"),
        (b"\x80\x03cbuiltins\nint\n]R.", "it calls a Reference with a list"),
        (b"\x80\x03K\x01K\x02a.", "it appends to a int"),
        (b"\x80\x03)K\x02a.", "it appends to a tuple"),
        (b"\x80\x03]K\x01K\x02s.", "it puts items into a list"),
        (b"\x80\x03}(K\x01u.", "shorter|zip"),
        (b"\x80\x03})K\x01s.", "it has a tuple as a key"),
        (b"\x80\x03}" + pickle.dumps(2**61 - 1, 3)[2:-1] + b"K\x01s.", "it has a int as a key"),
        (b"\x80\x03]K\x01b.", "it gives attributes to a list"),
        (b"\x80\x03h\x07.", "7"),
        (b"\x80\x03t.", "pop"),
        (b"\x80\x03.", "pop"),
        (b"\x80\x03ccollections\nOrderedDict\n]\x85R.", "creates a dict"),
        (b"\x80\x03ctorch._utils\n_rebuild_parameter\nK\x01\x89)\x87R.", "a int for a parameter"),
        (b"\x80\x03cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00O8\x85RC\x01a\x86R.", "O8"),
        (b"\x80\x03cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00f8\x85RC\x01a\x86R.", "8 bytes"),
        (b"\x80\x03cnumpy.core.multiarray\nscalar\nNN\x86R.", "arguments|state"),
        (b"\x80\x03\xff.", "unknown"),
        (b"PK\x03\x04", "PERSID|newline"),
        (b"", "exhausted"),
    ],
)
def test_programs_that_make_no_sense(refused, content, message):
    assert re.search(message, refused(content))


@pytest.mark.timeout(20)
def test_what_holds_another_twice_is_neither_shown_nor_hashed(refused):
    """Sixty times over, that would take as long as there is."""
    lists = b"]q\x00" + 60 * b"](h\x00h\x00eq\x00"
    tuples = b")q\x00" + 60 * b"h\x00\x86q\x00"
    word = b"X\x01\x00\x00\x00a"
    assert "it names something by a list and a str" in refused(b"\x80\x04" + lists + word + b"\x93.")
    assert "it names something by a str and a tuple" in refused(b"\x80\x04" + word + tuples + b"\x93.")
    number = b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(" + tuples + b"tRC\x01atR."
    assert "it has a tuple for a type of numbers" in refused(b"\x80\x03" + number)


@pytest.mark.parametrize(
    "start",
    [
        b"B" + struct.pack("<I", 2**32 - 1),
        b"\x8e" + struct.pack("<Q", 2**62),
        b"\x8d" + struct.pack("<Q", 2**63),
        b"X" + struct.pack("<I", 2**31),
        b"\x8b" + struct.pack("<i", 2**31 - 1),
        b"\x8b" + struct.pack("<i", -1),
        b"\x95" + struct.pack("<Q", 2**60),
        b"c" + b"a" * 5000,
    ],
)
def test_lengths_are_not_believed(refused, start):
    refused(b"\x80\x04" + start)


def test_steps_are_counted(refused, monkeypatch):
    monkeypatch.setattr(restricted, "MAX_STEPS", 100)
    assert "more than 100 steps" in refused(b"\x80\x03" + 200 * b"]")


def sound():
    return pickle.dumps({"a": torch.arange(6.0).reshape(2, 3), "b": Box([np.float64(0.5), {1}])}, 3)


def test_every_truncation_is_refused(refused, read):
    content = sound()
    read(content, CLASSES)
    for length in range(len(content) - 1):
        refused(content[:length], CLASSES)


def test_flipped_bits_are_refused_or_change_data_alone(read):
    """Whatever a flipped bit does, the outcome is data or a clear error."""
    content = sound()
    rng = np.random.default_rng(0)
    for position in rng.choice(8 * len(content), size=500, replace=False):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        with contextlib.suppress(ModelFileError):
            assert isinstance(read(bytes(damaged), CLASSES), DATA)
