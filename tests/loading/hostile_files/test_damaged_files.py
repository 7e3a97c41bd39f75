"""Numbers that no network has, and files with cuts and flipped bits, are refused by errors of ours alone."""

import random
from pathlib import Path

import pytest
import torch
from torch import nn

from promptgen.errors import CheckpointError, ModelFileError
from promptgen.flows.chain_file import load_chain, save_chain
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.loading.checks import load_strictly
from promptgen.loading.inspection.report import inspect_file, to_text
from promptgen.loading.own_files import fill_module, save_module, save_tensors
from promptgen.loading.published import read_safetensors, read_state


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(number, tmp_path):
    state = network().state_dict()
    state["0.weight"][1, 2] = number
    with pytest.raises(ModelFileError, match=r"weights: not finite: 0\.weight; fetch it again"):
        load_strictly(network(), state, Path("weights"))
    save_module(tmp_path / "m.safetensors", network(), {})
    with pytest.raises(CheckpointError, match=r"not finite: 0\.weight"):
        fill_module(network(), state, tmp_path / "m.safetensors")


def test_numbers_become_finite_ones_of_the_network_or_are_refused():
    state = network().state_dict()
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    load_strictly(network(), half, Path("weights"))
    state["0.weight"] = torch.full((4, 3), 1e300, dtype=torch.float64)
    with pytest.raises(ModelFileError, match=r"not finite: 0\.weight"):
        load_strictly(network(), state, Path("weights"))
    state["0.weight"] = torch.zeros(4, 3, dtype=torch.complex64)
    with pytest.raises(ModelFileError, match=r"of no type that weights have: 0\.weight \(torch\.complex64\)"):
        load_strictly(network(), state, Path("weights"))


def test_a_mask_may_have_infinities_where_the_network_has_some():
    masked = nn.Module()
    masked.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
    load_strictly(masked, {"mask": torch.full((2, 2), -torch.inf).triu(1)}, Path("weights"))
    with pytest.raises(ModelFileError, match="not finite: mask"):
        load_strictly(masked, {"mask": torch.full((2, 2), torch.nan)}, Path("weights"))


def sound_files(folder):
    """Write a sound file of every kind that is read; return the loader of each and what it gives."""
    content = {"model": network().state_dict(), "epoch": 3, "half": torch.zeros(5).half()}
    torch.save(content, folder / "zip.pt")
    torch.save(content, folder / "old.pt", _use_new_zipfile_serialization=False)
    save_chain(folder / "chain.safetensors", [Flow(4, FlowConfig(blocks=1, hidden=4))], {"type": "x"}, {"pass": 1})
    save_tensors(folder / "plain.safetensors", network().state_dict(), {})
    return {
        "zip.pt": load_damaged,
        "old.pt": load_damaged,
        "chain.safetensors": load_chain,
        "plain.safetensors": fill_damaged,
    }


def load_damaged(path):
    load_strictly(network(), read_state(path, "model"), path)


def fill_damaged(path):
    load_strictly(network(), read_safetensors(path), path)


@pytest.mark.parametrize("name", ["zip.pt", "old.pt", "chain.safetensors", "plain.safetensors"])
@pytest.mark.timeout(120)
def test_damage_is_refused_or_leaves_the_layout_as_it_was(name, tmp_path):
    """Cuts at many points, and flipped bits all over the file; with another error than ours, this fails."""
    loader, whole, rng = sound_files(tmp_path)[name], (tmp_path / name).read_bytes(), random.Random(name)
    path, outcomes = tmp_path / f"damaged-{name}", []
    for trial in range(90):
        content = bytearray(whole)
        if trial % 3 == 0:
            content = content[: rng.randrange(len(content))]
        for _ in range(rng.choice([1, 1, 4]) if trial % 3 else 0):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        to_text(inspect_file(path, {}))
        try:
            loader(path)
        except (ModelFileError, CheckpointError):
            outcomes.append(False)
        else:
            outcomes.append(True)
    assert not all(outcomes[::3])
    assert any(outcomes)
