"""State dicts in the forms that trainings leave them in: all are read as the network's own, in single precision."""

import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

from promptgen.errors import ModelFileError
from promptgen.loading.checks import load_strictly
from promptgen.loading.published import read_state

FORMS = {
    "a plain dict": dict,
    "an ordered dict": OrderedDict,
    "parameters": lambda state: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in state.items()},
    "data parallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "half precision": lambda state: cast(state, torch.float16),
    "brain floats": lambda state: cast(state, torch.bfloat16),
    "double precision": lambda state: cast(state, torch.float64),
}
SAVES = {"zip": True, "legacy": False}


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def cast(state, dtype):
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}


def save(content, path, *, new=True):
    torch.save(content, path, _use_new_zipfile_serialization=new)
    return path


def say_cuda(path):
    """Let a file say that its tensors were on the first GPU."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"))
    assert b"cuda:0" in path.read_bytes()


def assert_loads(state, path):
    expected, loaded = network(), network(seed=1)
    load_strictly(loaded, state, path)
    for key, value in loaded.state_dict().items():
        assert value.dtype == expected.state_dict()[key].dtype
        torch.testing.assert_close(value, expected.state_dict()[key], rtol=5e-3, atol=0)


@pytest.fixture(autouse=True)
def global_state():
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("save_as", SAVES)
def test_every_form_is_read(form, save_as, tmp_path):
    state = FORMS[form](network().state_dict())
    flat = save({**state, "epoch": 3}, tmp_path / "flat.pt", new=SAVES[save_as])
    entry = save({"model": state, "epoch": 3}, tmp_path / "entry.pt", new=SAVES[save_as])
    assert_loads(read_state(flat), flat)
    assert_loads(read_state(entry, "model"), entry)


def test_tensors_saved_from_a_gpu_are_read_on_the_cpu(tmp_path):
    path = save(dict(network().state_dict()), tmp_path / "cuda.pt")
    say_cuda(path)
    assert_loads(read_state(path), path)


def test_the_prefix_is_taken_off_only_if_every_key_has_it(tmp_path):
    path = save({"module.0.weight": torch.ones(2), "0.bias": torch.ones(2)}, tmp_path / "mixed.pt")
    assert read_state(path).keys() == {"module.0.weight", "0.bias"}


def test_numbers_too_large_for_single_precision_are_refused(tmp_path):
    state = cast(network().state_dict(), torch.float64)
    state["0.weight"][0, 0] = 1e300
    path = save(state, tmp_path / "large.pt")
    with pytest.raises(ModelFileError, match=r"not finite: 0\.weight"):
        load_strictly(network(), read_state(path), path)
