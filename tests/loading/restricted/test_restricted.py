"""Pickles read as data: what plain data, tensors, numbers and known classes become."""

import pickle
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch

from promptgen.errors import ModelFileError
from promptgen.loading.restricted import read_pickle
from promptgen.loading.stack_machine import Reference
from tests.loading.restricted.classes import CLASSES, Box, Numbers, Words


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


def test_a_large_index_of_the_memo_needs_no_memory(read):
    assert read(b"\x80\x03]r\xff\xff\xff\xff.") == []


def test_deep_nesting(read):
    found = read(b"\x80\x03" + b"]" * 50_000 + b"a" * 49_999 + b".")
    for _ in range(49_999):
        (found,) = found
    assert found == []


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"none\.pkl: no such file; fetch the model first"):
        read_pickle(tmp_path / "none.pkl")
    with pytest.raises(ModelFileError, match="no such file"):
        read_pickle(tmp_path)
