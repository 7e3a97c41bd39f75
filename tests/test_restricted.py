"""Pickles read as data: what is on the list, what is refused, damage of every kind; nothing of a file is ever run."""

import contextlib
import io
import pickle
import re
import struct
import warnings
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch

from promptgen import restricted
from promptgen.errors import ModelFileError
from promptgen.restricted import Record, Reference, read_pickle

REFUSED = "expected a pickle of tensors and known classes; fetch it again"


DATA = dict | list | tuple | Record | Reference | str | bytes | int | float | torch.Tensor | None


class Box:
    """A class that only the test knows."""

    def __init__(self, content):
        self.content = content

    def __eq__(self, other):
        raise AssertionError("nothing of this class may be used")

    __hash__ = None


class Numbers(list):
    pass


class Words(dict):
    pass


CLASSES = [f"{Box.__module__}.{kind.__name__}" for kind in (Box, Numbers, Words)]


@pytest.fixture
def read(tmp_path):
    def run(content, classes=()):
        path = tmp_path / "some.pkl"
        path.write_bytes(content)
        return read_pickle(path, classes)

    return run


@pytest.fixture
def refused(read):
    """Return the message of the error that reading some bytes ends in."""

    def run(content, classes=()):
        with pytest.raises(ModelFileError, match=rf"some\.pkl: {REFUSED}") as error:
            read(content, classes)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 1000
        return str(error.value)

    return run


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_plain_data(read, protocol):
    content = {
        "numbers": [0, -1, 255, 65535, 2**31, -(2**40), 0.5],
        3: ("", "text", "\N{SNOWMAN}" * 300, None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "nested": [[], {}, {"a": {"b": []}}, list(range(2000))],
        "ordered": OrderedDict(a=1),
        "default": defaultdict(dict, a=1),
        "bytes": [b"", b"short", b"long" * 100],
    }
    assert read(pickle.dumps(content, protocol)) == content


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_tensors(read, protocol):
    shared = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "contiguous": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)),
        "strided": shared.T[1:, ::2],
        "part": shared[2:],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "whole": torch.arange(4),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "parameter": torch.nn.Parameter(torch.ones(2), requires_grad=True),
    }
    for name, found in read(pickle.dumps(tensors, protocol)).items():
        assert type(found) is torch.Tensor
        assert not found.requires_grad
        assert found.dtype == tensors[name].dtype
        torch.testing.assert_close(found, tensors[name].detach(), rtol=0, atol=0)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("kind", "value"), [("f8", 0.1), ("f4", 0.5), ("i8", -3), ("u1", 200), ("b1", True)])
def test_numbers_of_numpy(read, order, kind, value):
    (found,) = read(pickle.dumps([np.array(value, dtype=order + kind)[()]], 3))
    assert found == value
    assert isinstance(found, type(value))


def test_known_classes_become_records(read):
    numbers, words = Numbers([1, 2]), Words(a=1)
    numbers.extra = "state"
    box, found_numbers, found_words = read(pickle.dumps([Box(content=[3]), numbers, words], 3), CLASSES)
    assert (box.name, box.arguments, box.state) == (CLASSES[0], (), {"content": [3]})
    assert (found_numbers.elements, found_numbers.state) == ([1, 2], {"extra": "state"})
    assert found_words.items == {"a": 1}


def test_names_that_are_only_mentioned_become_references(read):
    assert read(pickle.dumps([int, Box], 3), CLASSES) == [Reference("builtins.int"), Reference(CLASSES[0])]


def test_an_object_that_holds_itself(read):
    box = Box(content=None)
    box.content = [box]
    found = read(pickle.dumps(box, 3), CLASSES)
    assert found.state["content"][0] is found


def test_sets_become_records(read):
    assert read(pickle.dumps({1, 2}, 3)).arguments == ([1, 2],)
    assert sorted(read(pickle.dumps({1, 2}, 4)).elements) == [1, 2]


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
        ("promptgen.restricted", "read_pickle"),
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
    assert f"it has the step {step}, which files of weights do without" in refused(content)


def storage(numbers=4, claimed=None, dtype=torch.float32):
    """The bytes of a storage, which may claim another number of numbers than it has."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.save(torch.zeros(numbers, dtype=dtype).storage(), buffer, _use_new_zipfile_serialization=False)
    content = buffer.getvalue()
    if claimed is not None:
        size = b"K" + bytes([numbers]) + b"N"
        assert content.count(size) == 1
        content = content.replace(size, b"\x8a\x07" + claimed.to_bytes(7, "little") + b"N")
    return content


def stored(content):
    """Steps that leave the storage with these bytes on the stack."""
    return b"ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(content)) + content + b"\x85R"


def tensor(content=None, offset=0, size=(4,), stride=(1,)):
    """A pickle of a tensor on a storage with these bytes."""
    view = b"".join(pickle.dumps(part, 3)[2:-1].replace(b"q\x00", b"") for part in (offset, size, stride))
    start = b"\x80\x03ctorch._utils\n_rebuild_tensor_v2\n("
    return start + stored(storage() if content is None else content) + view + b"\x89)tR."


def test_the_tensor_of_these_tests_is_sound(read):
    torch.testing.assert_close(read(tensor()), torch.zeros(4), rtol=0, atol=0)


@pytest.mark.parametrize(
    "shape",
    [
        {"size": (5,)},
        {"offset": 1},
        {"offset": 5, "size": (0,)},
        {"offset": -1},
        {"size": (-1,)},
        {"stride": (-1,)},
        {"stride": (2,)},
        {"size": (4, 4), "stride": (0, 1)},
        {"size": (2**40,), "stride": (0,)},
        {"size": (2**62, 2**62), "stride": (1, 1)},
        {"size": (2**31, 2**31, 0), "stride": (2**62, 1, 1)},
        {"size": (1, 1), "stride": (1,)},
        {"size": (1,) * 9, "stride": (1,) * 9},
        {"size": (True,)},
        {"size": (4.0,)},
        {"size": "four"},
        {"offset": None},
    ],
)
def test_impossible_tensors(refused, shape):
    assert "it has a tensor" in refused(tensor(**shape))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nothing",
        pickle.dumps(Box(1), 2),
        storage()[:60],
        storage()[:-1],
        storage(4, claimed=5),
        storage(4, claimed=2**50),
        storage(dtype=torch.complex64),
        storage()[:20] + b"\x00" * 400,
    ],
)
def test_storages_that_are_not(refused, content):
    refused(tensor(content))


def test_a_storage_in_a_zip_container(refused):
    buffer = io.BytesIO()
    torch.save(torch.zeros(4), buffer)
    assert "container of another kind" in refused(tensor(buffer.getvalue()))


class Trap:
    """Would leave a file behind if it were ever run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_inside_a_storage_is_not_run(tmp_path, refused):
    buffer = io.BytesIO()
    torch.save(Trap(tmp_path / "ran"), buffer, _use_new_zipfile_serialization=False)
    refused(tensor(buffer.getvalue()))
    refused(pickle.dumps([Trap(tmp_path / "ran")], 3))
    assert not (tmp_path / "ran").exists()


def test_a_file_cannot_change_the_reader(read, refused):
    """Attributes given to what stands for a class or function would outlive the file, if they were kept."""
    state = pickle.dumps({"name": "posix.system", "__call__": 1}, 3)[2:-1]
    for name in (b"cbuiltins\nint\n", b"ctorch._utils\n_rebuild_tensor_v2\n"):
        assert "it gives attributes to a Reference" in refused(b"\x80\x03" + name + state + b"b.")
        assert "it gives attributes to a Reference" in refused(b"\x80\x03" + name + b"N" + state + b"\x86b.")
    read(tensor())


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
        (b"\x80\x03ccollections\nOrderedDict\n]\x85R.", "fills a dict"),
        (b"\x80\x03ctorch._utils\n_rebuild_parameter\nK\x01\x89)\x87R.", "a int for a parameter"),
        (b"\x80\x03cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00O8\x85RC\x01a\x86R.", "O8"),
        (b"\x80\x03cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00f8\x85RC\x01a\x86R.", "8 bytes"),
        (b"\x80\x03cnumpy.core.multiarray\nscalar\nNN\x86R.", "arguments|state"),
        (b"\x80\x03\xff.", "unknown"),
        (b"PK\x03\x04", "PERSID|newline"),
        (b"", "ends after 0 bytes"),
    ],
)
def test_programs_that_make_no_sense(refused, content, message):
    assert re.search(message, refused(content))


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


def test_a_large_index_of_the_memo_needs_no_memory(read):
    assert read(b"\x80\x03]r\xff\xff\xff\xff.") == []


def test_bytes_are_made_into_numbers_once(refused):
    content = storage(1000)
    once = b"ctorch.storage\n_load_from_bytes\nq\x00B" + struct.pack("<I", len(content)) + content + b"\x85q\x01R"
    assert "makes more numbers than it holds" in refused(b"\x80\x03" + once + 3 * b"h\x00h\x01R" + b".")


def test_steps_are_counted(refused, monkeypatch):
    monkeypatch.setattr(restricted, "MAX_STEPS", 100)
    assert "more than 100 steps" in refused(b"\x80\x03" + 200 * b"]")


def test_deep_nesting(read):
    found = read(b"\x80\x03" + b"]" * 50_000 + b"a" * 49_999 + b".")
    for _ in range(49_999):
        (found,) = found
    assert found == []


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


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"none\.pkl: no such file; fetch the model first"):
        read_pickle(tmp_path / "none.pkl")
    with pytest.raises(ModelFileError, match="no such file"):
        read_pickle(tmp_path)
